"""Images of the product and of the tests' own apps, as docker archives. Pushes nothing and needs no registry."""

from e2e.cluster.archive import ArchiveError, static

__all__ = ["ArchiveError", "static"]
