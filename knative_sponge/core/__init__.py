"""The decisions: deadlines, queue, batches, latency model, cores, division of a node, resize. A library of pure state machines.

No I/O, no clock, no event loop, no randomness: time comes in as `now`, in monotonic seconds. The proxy, the controller and
the simulator are shells around it. It imports the standard library and `errors` only.
"""
