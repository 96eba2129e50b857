"""A model server behind the proxy on this machine, without Kubernetes: processes, ports, cores that follow demand.

No request passes through it and no size is chosen here: the proxy, a process of its own, serves and asks for cores. It may
import `core`, `settings`, `wire` and `errors`, but not the proxy, the controller or the command line.
"""
