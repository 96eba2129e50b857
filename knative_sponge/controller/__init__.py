"""The cluster-wide half: the admission webhook, and on the leader the autoscaler class and the webhook's certificates.

No request of a user passes through here, and no proxy waits for it: every part may be down without an answer being lost. No
pod's content, key or token reaches a log. Nothing is imported from the other shells (proxy, local, sim, profile, cli). Of its
rooms the upper may import the lower: `sizing`, `admission` and `revisions`, which do not know each other; `profiles`; `proxies`
and `cluster`, which do not either; the module `annotations`; `reporting` and `kube`, which do not either.
"""
