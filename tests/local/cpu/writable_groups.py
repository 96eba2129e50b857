"""The cgroup hierarchies of this machine in which tests may make groups."""

from __future__ import annotations

import os

from knative_sponge.local.cpu.mounts import Place, find_place


def may_make_groups(place: Place | None) -> bool:
    """Whether a cgroup can be made below our own, tried out."""
    if place is None:
        return False
    trial = place.own / f"sponge-test-trial-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True


V1_CPU = find_place("cpu")
HAVE_V1 = V1_CPU is not None and V1_CPU.version == 1 and may_make_groups(V1_CPU)
V2_ANY = find_place("no controller has this name")
"""The v2 hierarchy, whether it holds the cpu controller or not."""
HAVE_V2 = V2_ANY is not None and V2_ANY.version == 2 and may_make_groups(V2_ANY)
