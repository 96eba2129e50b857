"""HTTP/1.1 with clients: bytes become ASGI requests, and ASGI answers become bytes.

Nothing here knows the model server, Knative or the queue, and no body is understood.
The lowest room of the proxy: it imports none of the others.
"""
