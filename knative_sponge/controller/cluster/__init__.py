"""What is in the cluster: nodes and pods as values, which cores of a node may be divided, and the informers of the leader.

Nothing is decided or written here, and every module but `watches` and `capacity` is pure. It may import `annotations` and
`kube`.
"""
