"""Load and measurement: traces, arrival processes, an open-loop client, latency over (batch, cores).

No server is started and no request is batched here. It may import `core` and `errors`, but no other shell.
"""
