"""How far a pod grows and shrinks at once, where its node has cores to spare: further up than it needs at this moment, and
down step by step.

A pod is patched once a second at most, and a need that has begun to rise seldom stops there: the rate is learned while the
surge comes in. A step that only just serves what is known now is too small a moment later, and has used up the second.
`benchmarks/growth.py` shows what that is worth in virtual time: 0 to 52 % of the misses and 26 to 88 % of the patches, for
10 % fewer to 45 % more cores.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GrowthRules:
    """Cores unless said otherwise.

    factor: a growth is to at least so many times the present size, but see `most`.
    most: `factor` adds no more than this; where more is needed, it is needed, not guessed.
    further: the rise so far goes on for so many times its own height.
    share: of the cores to spare, a growth takes at most so much beyond its need; the next pod's finds the rest at once.
    least: a shrink leaves at least this share of the size. What a latency model says of sizes it has not seen under this load
        may be wrong.
    margin: and it leaves so many times the need, for the same reason, and so that the pod need not grow again at once.
    hold_s: a size is kept for so long after it was patched, while nobody else needs the cores, and a pod shrinks to the
        largest need of so long at least.
    patience_s: and of so long at most, where shorter looks back have proved too short (`core/allocation/lookback.py`).
    """

    factor: float = 3.0
    most: float = 1.0
    further: float = 1.0
    share: float = 0.5
    least: float = 0.5
    margin: float = 1.25
    hold_s: float = 8.0
    patience_s: float = 32.0

    def __post_init__(self) -> None:
        if not (
            self.factor >= 1
            and self.most >= 0
            and self.further >= 0
            and 0 <= self.share <= 1
            and 0 <= self.least < 1
            and self.margin >= 1
            and self.hold_s >= 0
            and self.patience_s >= 0
        ):
            raise ValueError(f"impossible rules: {self}")


def grown(present: float, need: float, high: float, spare: float, rules: GrowthRules, *, late: bool) -> float:
    """The size to ask for, to a millicore. need: above `present`. high: most for this pod. spare: cores that nobody needs
    when this pod has `need`. late: rows are expected to miss at the present size; then `most` is added whatever `factor`, as
    far as there are cores to spare, whatever `share`."""
    at_least = present + rules.most if late else min(rules.factor * present, present + rules.most)
    share = 1.0 if late else rules.share
    ambition = min(max(need + rules.further * (need - present), at_least), high, need + share * max(spare, 0.0))
    return max(need, int(ambition * 1000 + 1e-6) / 1000)


def shrunk(present: float, need: float, spare: float, rules: GrowthRules) -> float:
    """The size to ask for, to a millicore. need: below `present`. spare: cores that nobody needs when this pod has `need`."""
    step = min(max(rules.least * present, min(rules.margin * need, present)), need + max(spare, 0.0))
    return max(need, int(step * 1000 + 1e-6) / 1000)
