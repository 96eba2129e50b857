"""The cluster-wide half: the admission webhook, and on the leader the autoscaler class and the webhook's certificates.

What may not happen inside: no request of a user passes through here and the proxy never waits for it, so every part may
be down without an answer being lost. Nothing is imported from the other shells (proxy, local, sim, profile, cli). Only
`kube` talks to the API server; `admission_review`, `pod`, `profile`, `service` and `certificate` are pure and do no I/O at all.
No pod's content, key or token reaches a log.
"""
