"""Which requests go upstream together, and when: deadlines, the queue, the plan, the batcher's state machine.

No call is sent and no core count is chosen here. It may import `core.latency`, but neither `allocation` nor `resizing`.
"""
