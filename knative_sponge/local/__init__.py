"""In-place CPU control of a process tree on this machine, without Kubernetes. Knows nothing about HTTP."""
