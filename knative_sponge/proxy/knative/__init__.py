"""What makes the process a queue-proxy to Knative: probes, drain, concurrency, timeouts, statistics, logs and metrics.

Nothing here batches, and nothing waits for a deadline.
May import `proxy.upstream` and `proxy.http`.
"""
