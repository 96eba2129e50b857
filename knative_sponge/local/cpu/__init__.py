"""Holding a process tree to a number of cores: cgroup v1, cgroup v2 or CPU affinity behind one port, `CpuControl`.

No size is chosen and no process is started here. It may import `errors` and `core.quantity`.
"""
