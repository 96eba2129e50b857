"""The queue-proxy: sockets around the core. Must not import numpy, ortools, kubernetes or pandas (tested)."""
