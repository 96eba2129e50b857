"""What growth beyond the need is worth (`core/allocation/growth.py`), and patience with shrinks
(`core/allocation/lookback.py`), for one pod.

    python -m benchmarks.growth [--seeds 4]

It runs in virtual time, with production's batcher, demand estimate, look-back, growth rule and one second between patches. The
model server is only a latency curve, or one thread under the kernel's quota. A patch takes 15 ms, and its size comes into
force 115 ms after that. For each load it prints the share of missed requests, mean cores, patches a minute, and how many
patches came late after the change of the target.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from knative_sponge.core.allocation.growth import GrowthRules, grown, shrunk
from knative_sponge.core.allocation.lookback import Lookback
from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.sim.pod import Outcome, Pod, Server
from knative_sponge.sim.quota import QuotaPod

_SPACING_S = 1.015
_PATCH_S, _APPLY_S = 0.015, 0.115
_TICK_S = 0.25
_TAIL_S = 12.0
_DEADBAND, _LEAST_GROWTH = 0.1, 0.02
"""Those of `core.allocation.divide.DivideRules`."""

RULES = {
    "need, 5 s": GrowthRules(factor=1.0, extrapolation=0.0, least=0.0, margin=1.0, hold_s=5.0, max_lookback_s=5.0),
    "need, 8 s": GrowthRules(factor=1.0, extrapolation=0.0, least=0.0, margin=1.0, max_lookback_s=8.0),
    "twice": GrowthRules(factor=2.0),
    "impatient": GrowthRules(max_lookback_s=8.0),
    "tight shrinks": GrowthRules(margin=1.0),
    "used": GrowthRules(),
    "used, 5 s": GrowthRules(hold_s=5.0),
}


@dataclass(frozen=True, slots=True)
class Load:
    """Requests on a model server. parts: (seconds, requests per second). even: evenly spaced, not by chance. quota: the model
    server computes on one thread under the kernel's quota."""

    name: str
    latency: LatencyParams
    slo_s: float
    cores: tuple[float, float]
    parts: tuple[tuple[float, float], ...]
    even: bool = False
    quota: bool = False

    def works(self, rng: random.Random) -> list[Work]:
        """One history."""
        times: list[float] = []
        begin_s = 0.0
        for seconds, rate in self.parts:
            at_s = begin_s
            while True:
                at_s += 1.0 / rate if self.even else rng.expovariate(rate)
                if at_s >= begin_s + seconds:
                    break
                times.append(at_s)
            begin_s += seconds
        return [
            Work(key, at_s + self.slo_s, arrived_s=at_s, give_up_s=at_s + self.slo_s + 1.0)
            for key, at_s in enumerate(times)
        ]


# Sponge's authors' models, and the one of the end-to-end tests (10 ms a call and 20 ms a row of CPU).
_YOLO = LatencyParams(0.1277, 0.0246, 0.0, 0.0184)
_RESNET = LatencyParams(0.0238, 0.0037, 0.0139, 0.0057)
_AFFINE = LatencyParams(0.02, 0.0, 0.01, 0.0005)
LOADS = (
    Load("quota, even", _AFFINE, 0.5, (0.1, 1.0), ((120, 12),), even=True, quota=True),
    Load("quota", _AFFINE, 0.5, (0.1, 1.0), ((120, 12),), quota=True),
    Load("quota ×4", _AFFINE, 0.5, (0.25, 1.0), ((20, 4), (30, 16), (15, 4)), quota=True),
    Load("affine ×4, even", _AFFINE, 0.5, (0.25, 1.0), ((20, 4), (30, 16), (15, 4)), even=True),
    Load("affine ×4", _AFFINE, 0.5, (0.25, 1.0), ((20, 4), (30, 16), (15, 4))),
    Load("resnet ×4", _RESNET, 0.3, (0.25, 8.0), ((20, 20), (30, 80), (15, 20))),
    Load("yolo ×4", _YOLO, 1.0, (0.5, 16.0), ((20, 3), (30, 12), (15, 3))),
    Load("resnet steady", _RESNET, 0.3, (0.25, 8.0), ((60, 60),)),
    Load("yolo steady", _YOLO, 1.0, (0.5, 16.0), ((60, 6),)),
)


class Resized(Pod):
    """A pod alone on a node with cores to spare, under the controller's rules for sizes."""

    def __init__(self, load: Load, rules: GrowthRules, rng: random.Random) -> None:
        low, high = load.cores
        batcher = Batcher(BatchRules(max_rows=16), LatencyModel(load.latency, period_s=0.1), low, high)
        estimator = DemandEstimator(CoresRules(low, high), batcher)
        super().__init__(batcher, Server(load.latency, spread=0.1), low, rng, estimator=estimator)
        self.lags: list[float] = []
        self._rules = rules
        self._bounds = low, high
        self._demand = estimator
        self._batcher = batcher
        self._want = self._spec = self._target = low
        self._lookback = Lookback(rules)
        self._patched_s = self._sized_s = -math.inf
        self._wanted_s: float | None = None
        self._end_s = 0.0

    def run(self, works: Sequence[Work], tail_s: float = _TAIL_S) -> Outcome:
        """See `Pod.run`."""
        self._end_s = works[-1].arrived_s + tail_s
        self._at(0.0, self._sweep)
        return super().run(works, tail_s)

    def _sweep(self) -> None:
        self._decide()
        if self._now < self._end_s:
            self._at(self._now + _TICK_S, self._sweep)

    def _resize(self, cores: float) -> None:
        if cores != self._want:
            self._want = cores
            self._lookback.add(self._now, cores, self._rate, self._spec)
            self._at(self._now + 0.01, self._decide)

    def _decide(self) -> None:
        rules, (low, high), spec = self._rules, self._bounds, self._spec
        size = max(self._lookback.add(self._now, self._want, self._rate, self._spec), low)
        if self._now < self._sized_s + rules.hold_s and rules.factor > 1.0:
            size = max(size, spec)
        if (1 - _DEADBAND) * spec <= size < (1 + _LEAST_GROWTH) * spec:
            size = spec
        elif size < spec:
            size = shrunk(spec, size, math.inf, rules)
        else:
            late = rules.factor > 1.0 and self._misses(spec) > 0.0
            size = grown(spec, size, high, math.inf, rules, late=late)
        if size != self._target:
            self._target = size
            self._wanted_s = None if size == spec else self._now if self._wanted_s is None else self._wanted_s
        self._act()

    @property
    def _rate(self) -> float:
        return self._batcher.arrivals.rate(self._now)

    def _misses(self, cores: float) -> float:
        return next((misses for size, misses in reversed(self._demand.curve(self._now)) if size <= cores), 0.0)

    def _act(self) -> None:
        if self._target == self._spec:
            return
        if self._now < self._patched_s + _SPACING_S:
            self._at(self._patched_s + _SPACING_S, self._act)
            return
        self.lags.append(0.0 if self._wanted_s is None else self._now - self._wanted_s)
        self._wanted_s = None
        cores = self._spec = self._target
        self._patched_s = self._sized_s = self._now
        self._at(self._now + _PATCH_S + _APPLY_S, lambda: self._resized(cores))


class ResizedQuota(Resized, QuotaPod):
    """The same with a model server under a quota."""


def measure(load: Load, rules: GrowthRules, seeds: int) -> str:
    """One row."""
    missed = requests = 0
    core_s = elapsed_s = 0.0
    lags: list[float] = []
    for seed in range(seeds):
        pod = (ResizedQuota if load.quota else Resized)(load, rules, random.Random(seed))
        outcome = pod.run(load.works(random.Random(seed)))
        missed, requests = missed + outcome.missed, requests + outcome.requests
        core_s, elapsed_s = core_s + outcome.core_seconds, elapsed_s + outcome.elapsed_s
        lags += pod.lags
    lags.sort()
    late = sum(lag > 0.5 for lag in lags)
    cells = (f"{100 * missed / requests:.2f} %", f"{core_s / elapsed_s:.2f}", f"{60 * len(lags) / elapsed_s:.1f}")
    return "  ".join(cell.rjust(8) for cell in (*cells, f"{late} of {len(lags)}"))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    print(f"{'load':16}  {'rule':14}    missed     cores    a min  >0.5 s late")
    for load in LOADS:
        for name, rules in RULES.items():
            print(f"{load.name:16}  {name:14}  {measure(load, rules, options.seeds)}", flush=True)


if __name__ == "__main__":
    main()
