"""The admission webhook: our proxy for pods with an SLO, checks of Services, and the webhook's own certificates.

No pod may be refused, and no review may wait for I/O: the rules (`pod`, `service`, `admission_review`, `certificate`) are pure.
No pod's content, key or token may be logged. It may import `profiles` and the rooms below, but neither `sizing` nor
`revisions`.
"""
