"""The deadline queue: inference requests are parsed, batched, sent and answered; demand goes out, sizes come in.

Nothing is decided here: the core's machines decide when to send what and how many cores are needed.
May import `proxy.knative`, `proxy.upstream` and `proxy.http`, but not the rooms that put the ports together.
"""
