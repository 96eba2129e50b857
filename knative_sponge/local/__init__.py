"""In-place CPU control of a process tree on this machine, without Kubernetes. Takes no decision about requests."""
