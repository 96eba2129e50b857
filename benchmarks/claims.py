"""What clients that claim less time than the SLO cost the others, by the setting `client-budget` (docs/deadlines.md).

    python -m benchmarks.claims [--seeds 4]

It runs in virtual time: production's batcher and demand estimate on one pod that gets what it wants after a tenth of a second,
and ResNet18 with an SLO of 500 ms. For each load it prints mean cores, the mean of the largest wants, and the share of requests
without a good answer by the deadline that holds for them: of those that claim nothing, and of those that do.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.deadline import ClientBudget, deadline_of
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.sim.pod import Pod, Server

RESNET = LatencyParams(0.0238, 0.0037, 0.0139, 0.0057)
_SLO_S = 0.5
_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Load:
    """Requests a second that claim nothing, and that claim `claim_ms`."""

    plain: float
    urgent: float
    claim_ms: int
    max_cores: float = 16.0

    def works(self, client_budget: ClientBudget, rng: random.Random) -> tuple[list[Work], set[int]]:
        """One history, and the keys of those that claim."""
        claim = {b"x-sponge-slo-ms": str(self.claim_ms).encode()}
        came = [(rng.uniform(0.0, _SECONDS), False) for _ in range(round(self.plain * _SECONDS))]
        came += [(rng.uniform(0.0, _SECONDS), True) for _ in range(round(self.urgent * _SECONDS))]
        works = []
        for key, (at_s, claims) in enumerate(sorted(came)):
            deadline = deadline_of(
                claim if claims else {},
                now=at_s,
                wall_now_s=at_s,
                slo_s=_SLO_S,
                timeout_s=10.0,
                max_network_share=0.9,
                client_budget=client_budget,
            )
            patience_s = deadline.at_s + 0.5
            works.append(
                Work(key, deadline.at_s, arrived_s=at_s, give_up_s=patience_s, sizing_deadline_s=deadline.sizing_at_s)
            )
        return works, {key for key, (_, claims) in enumerate(sorted(came)) if claims}


LOADS = (
    Load(8, 0, 40),
    Load(8, 2, 40),
    Load(20, 5, 150),
    Load(20, 20, 200),
    Load(30, 60, 100, max_cores=2.0),
)


class Watched(DemandEstimator):
    """Remembers the most that it wanted."""

    most = 0.0

    def want(self, now: float) -> float:
        """See `DemandEstimator.want`."""
        cores = super().want(now)
        self.most = max(self.most, cores)
        return cores


def run(load: Load, client_budget: ClientBudget, seed: int) -> tuple[float, float, float, float]:
    """Mean cores, largest want, missed of those that claim nothing and of those that claim, in percent."""
    works, urgent = load.works(client_budget, random.Random(seed))
    batcher = Batcher(BatchRules(), LatencyModel(RESNET, period_s=0.0), 0.5, load.max_cores)
    estimator = Watched(CoresRules(0.1, load.max_cores), batcher)
    outcome = Pod(batcher, Server(RESNET), 0.5, random.Random(seed), estimator=estimator).run(works)
    missed = [
        100 * sum(key in outcome.missed_keys for key in keys) / max(len(keys), 1)
        for keys in ({work.key for work in works} - urgent, urgent)
    ]
    return outcome.mean_cores, estimator.most, missed[0], missed[1]


def row(results: Sequence[tuple[float, ...]]) -> str:
    """Means over the seeds."""
    cores, want, plain, urgent = (statistics.mean(column) for column in zip(*results, strict=True))
    return f"{cores:6.2f}  {want:8.2f}  {plain:8.2f} %  {urgent:8.2f} %"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    seeds = parser.parse_args().seeds
    print(f"{'requests/s':34}  {'budget':8}   cores      want  missed: none      claim")
    for load in LOADS:
        name = f"{load.plain:g}, and {load.urgent:g} that claim {load.claim_ms} ms, ≤ {load.max_cores:g} cores"
        for client_budget in ClientBudget:
            results = [run(load, client_budget, seed) for seed in range(seeds)]
            print(f"{name:40}  {client_budget:8}  {row(results)}", flush=True)


if __name__ == "__main__":
    main()
