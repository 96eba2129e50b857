"""The PodAutoscaler class: how many pods a revision has, when it goes to zero, and the status that Knative reads.

Sizes of pods are no matter of this room. What to write is decided by pure modules (`decision` and those that it imports);
only `reconciler` writes, and only `activators` reads the activators. It may import `cluster`, `annotations`, `reporting` and
`kube`, but neither `sizing` nor `admission`.
"""
