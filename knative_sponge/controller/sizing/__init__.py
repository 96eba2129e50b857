"""From demands to resizes, on the leader: the cores and the memory of every managed pod, and pod counts of hybrid revisions.

What may not happen inside: of pods nothing but their size is written, and what is wrong with one pod or node stops no
other. It imports `profiles`, `proxies`, `cluster`, `annotations`, `reporting` and `kube`, never `admission` or `revisions`.
"""
