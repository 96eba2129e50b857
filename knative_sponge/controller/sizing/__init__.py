"""The cores and the memory of every managed pod, and the pod counts of hybrid revisions: from demands to resizes. On the leader.

What may not happen inside: no object but `pods/resize` is written, no pod is waited for by another, and what one pod or node
brings about stops no other. `claims`, `retention`, `actuation`, `round_robin`, `quota_refusals` and both states do no I/O.
Imports from the other rooms `cluster`, `proxies`, `profiles`, `reporting`, `kube` and `annotations`; never `admission` or
`revisions`.
"""
