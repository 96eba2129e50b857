"""How far a proxy's word counts: no further than what it can show for it. Pure.

Whatever runs in a pod can speak for its proxy. A lie about misses or wants costs the neighbours in its own namespace; those in
others have their fair shares (`core/allocation/fairness.py`). Numbers that cannot be are refused where lines are read (`wire`).
"""

from __future__ import annotations

import msgspec

from knative_sponge.wire.demand import DemandLine


def credible(line: DemandLine, most_cores: float) -> DemandLine:
    """The line as far as it counts. most_cores: of the pod's node.

    No want is beyond the node. No more rows per second are missed than arrive, wait and run.
    """
    curve = line.curve
    most_rows = line.rate + line.queued + line.running * line.max_batch
    if line.want <= most_cores and (not curve or curve[0][1] <= most_rows):
        return line
    if curve:
        curve = tuple((cores, min(misses, most_rows)) for cores, misses in curve)
    return msgspec.structs.replace(line, want=min(line.want, most_cores), curve=curve)
