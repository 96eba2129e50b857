"""What pods of an image have learned, kept beyond their lives: asked of proxies, stored in a ConfigMap, looked up for new pods.

No lookup may wait, and nothing that cannot be read is guessed. It may import `proxies`, `cluster`, `annotations`, `reporting`
and `kube`.
"""
