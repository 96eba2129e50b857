"""The queue-proxy, Knative's sidecar: users' requests in, the model server's answers out, some of them batched by deadline.

Nothing heavy is imported here (numpy, OR-tools, Kubernetes' client, pandas), nothing of the controller or of the
command line, and no rule of batching or of latency is written here: those are the core's.
May import `core`, `codec`, `settings`, `wire`, `listener`, `asgi` and `errors`.
"""
