"""Access to the API server: calls, informers, a work queue, the leader's lease, Events, and the rights of each (`resource`).

It knows objects as dicts, not what they mean: no rule of Knative or of this product may be in it. Only this room imports
`kubernetes`. It may import no other room.
"""
