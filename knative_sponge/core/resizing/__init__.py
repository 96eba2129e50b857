"""How one pod's size is moved in place: the state machine from target to patch to what the proxy is told.

It does not choose the target and sends no patch itself. It may import only `core`'s top modules (`quantity`, `backoff`).
"""
