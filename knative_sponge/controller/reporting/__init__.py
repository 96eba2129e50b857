"""What people and their tools read of the controller: metrics, health checks, and the overview of revisions and nodes.

Nothing is decided or computed from the cluster here: other rooms bring the figures. Nothing of a request and no secret may be
shown. It may import no other room.
"""
