"""How cores are shared out: a node's cores among its pods, a revision's load among pods, growth and memory of one pod.

No request is known and nothing is patched here. It may import `core.latency`, but neither `batching` nor `resizing`.
"""
