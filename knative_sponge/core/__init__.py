"""The decisions: deadlines, queue, batches, latency model, cores. No I/O, no clock, no loop, standard library only.

Time comes in as `now`, in monotonic seconds. The proxy, the controller and the simulator are shells around this package.
"""
