"""The latency model that everything plans with: how long a batch takes on so many cores, at the median and with caution.

It learns from the samples that it is given, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from itertools import accumulate
from math import exp
from typing import Final, NamedTuple, TypedDict, Unpack

from knative_sponge.core.latency.curve import (
    DEFAULT_SHAPE,
    LEAST_CORE_BUCKET,
    MOST_CORE_BUCKET,
    LatencyParams,
    Sample,
    core_bucket,
    region_of,
    row_bucket,
)
from knative_sponge.core.latency.evidence import of_curve
from knative_sponge.core.latency.learning import Learner
from knative_sponge.core.latency.offline_fit import fit_latency
from knative_sponge.core.latency.quota_credit import Credit, longest_wait_s
from knative_sponge.core.latency.spread import Spread

_TABLES_KEPT: Final = 64
"""Tables remembered between two samples. A solver asks for about 14 core counts at a time."""
_RESTORED_SAMPLES: Final = 10
"""Measurements that a restored curve of costs counts as. New measurements soon weigh more; where there are none it stands."""
_UNSEEN_ROWS: Final = -1
"""Stands in for every row bucket without a sample: all of them share one caution factor."""


class ModelOptions(TypedDict, total=False):
    """The keyword arguments of LatencyModel that are not learned, for functions that pass them on."""

    forgetting: float
    caution: float
    threads: int | None
    period_s: float


class _CautionFactors(NamedTuple):
    """Factors from the median latency to the cautious one, in one core bucket.

    weights: e^(caution·σ) by rows, from 0 on. larger_sizes: (first row, last row, 1/cores, e^(caution·σ)) of larger sizes that
    scatter more. Their cautious latency may be above that of the size asked about.
    """

    weights: list[float]
    larger_sizes: list[tuple[int, int, float, float]]


class LatencyModel:
    """Latency of (rows, cores), learned online (docs/design.md §4.1).

    prior: where learning starts. Only its shape matters once a sample has come. None is DEFAULT_SHAPE.
    forgetting: weight that a sample keeps when the next one comes, above 0 and below 1.
    caution: how many σ of its region a cautious latency lies above the median.
    threads: runnable threads of the model server, for the CFS-quota term. None: their number follows the cores, ⌈cores⌉.
    period_s: CFS period; 0 where no quota is enforced.

    Monotone: median and cautious latency never rise with cores and never fall with rows, so that a solver may bisect over
    either. σ differs between neighbouring regions and would break that. So the cautious latency is an upper hull: the
    largest cautious value of any smaller batch and of any larger size. The hull compares values and not σ: a 5 ms that
    scatters on 16 cores says nothing about a steady 60 ms on one.

    Quota term: the longest that a batch waits for the next period, once its own start or a neighbour has used the quota up.
    It is ``P·(1 − c/k)`` while k threads outnumber the c cores. With k = ⌈c⌉ it is a sawtooth in c. Only the tooth below one
    core, the longest, is added. The hull of the other teeth would charge every whole core count for a wait that only the
    sizes just beyond it have. Throttling of those sizes shows in their measured spread.

    Latency and cost (`core/latency/quota_credit.py`): latency is the time that a batch takes, and cost is the time that it
    keeps
    its cores busy. Latency decides whether a batch's own requests are in time. Cost decides how many batches can follow each
    other.
    """

    __slots__ = (
        "_caution",
        "_caution_factors",
        "_costs",
        "_credit",
        "_factors_of_regions",
        "_period_s",
        "_tables",
        "_threads",
        "costs",
        "last_sample_s",
        "learner",
        "spread",
    )

    def __init__(
        self,
        prior: LatencyParams | None = None,
        *,
        forgetting: float = 0.98,
        caution: float = 2.0,
        threads: int | None = None,
        period_s: float = 0.1,
    ) -> None:
        if not 0.0 < forgetting < 1.0:
            raise ValueError(f"forgetting must be above 0 and below 1, not {forgetting}")
        if not caution >= 0.0:
            raise ValueError(f"caution must be at least 0, not {caution}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        if not period_s >= 0.0:
            raise ValueError(f"period_s must be at least 0, not {period_s}")
        self._caution = caution
        self._threads = 1 if threads is None else threads
        self._period_s = period_s
        self._credit = Credit(self._threads, period_s)
        self._tables: dict[tuple[float, int], tuple[list[float], list[float]]] = {}
        self._costs: dict[tuple[float, int], list[float]] = {}
        self._caution_factors: dict[tuple[int, int], _CautionFactors] = {}
        self._factors_of_regions: dict[int, list[float]] = {}
        self.learner = Learner(prior or DEFAULT_SHAPE, forgetting)
        self.spread = Spread(forgetting)
        self.costs = self.learner
        """Learns what batches cost (`core/latency/quota_credit.py`). It is `learner` itself until the first sample under a
        quota, on fewer cores than there are threads."""
        self.last_sample_s: float | None = None
        """`now` of the last sample that was learned from."""

    @classmethod
    def fitted(cls, samples: Iterable[Sample], **options: Unpack[ModelOptions]) -> LatencyModel:
        """A model that has learned an offline profile: its prior is the best fit, and it then observes every sample once."""
        known = list(samples)
        model = cls(fit_latency(known), **options)
        for sample in known:
            model.observe(sample, 0.0)
        model.last_sample_s = None
        return model

    @property
    def params(self) -> LatencyParams:
        """The median curve now."""
        return self.learner.params

    def predict_s(self, rows: float, cores: float) -> float:
        """Median seconds of a batch. Hopeless is judged with it."""
        return self.learner.params.latency_s(rows, cores)

    def cautious_s(self, rows: int, cores: float) -> float:
        """Seconds that a batch rarely exceeds: ``l·e^(caution·σ)`` and the quota term. Batches are sized with it."""
        return self.tables(cores, rows)[1][rows]

    def observe(self, sample: Sample, now: float) -> None:
        """Learn one measurement; a cold one is ignored. now: monotonic seconds."""
        if sample.cold:
            return
        region = region_of(sample.rows, sample.cores)
        sigma = self.spread.sigma(region)
        self._observe_cost(sample, sigma)
        residual = self.learner.observe(sample, sigma)
        if residual is not None:
            self.spread.observe(region, residual)
        self.last_sample_s = now
        self._tables.clear()
        self._costs.clear()
        self._caution_factors.clear()
        self._factors_of_regions.clear()

    def restore_costs(self, params: LatencyParams) -> None:
        """Start from the cost curve that another model had learned."""
        self.costs = Learner(params, self.learner.forgetting)
        self.costs.restore(samples=_RESTORED_SAMPLES, level=1.0, recent=of_curve(params, _RESTORED_SAMPLES), regions={})

    def _observe_cost(self, sample: Sample, sigma: float) -> None:
        cost = self._credit.mean_cost(sample)
        if self.costs is self.learner:
            if sample.cores >= self._threads or not self._period_s:
                return
            self.costs = deepcopy(self.learner)
        if cost is not None:
            self.costs.observe(cost, sigma)

    def tables(self, cores: float, max_rows: int) -> tuple[list[float], list[float]]:
        """``([0, l(1) … l(max_rows)], [0, L(1) … L(max_rows)])``: median and cautious seconds, by rows.

        The lists are shared until the next sample: read them, never write. Raises ValueError unless cores are above 0.
        """
        known = self._tables.get((cores, max_rows))
        if known is not None:
            return known
        if not cores > 0.0:
            raise ValueError(f"cores must be above 0, not {cores}")
        params = self.learner.params
        inverse = 1.0 / cores
        slope, base = params.gamma * inverse + params.delta, params.epsilon * inverse + params.eta
        median = [slope * rows + base for rows in range(max_rows + 1)]
        median[0] = 0.0
        made = median, self._cautious(median, params, cores)
        if len(self._tables) >= _TABLES_KEPT:
            self._tables.clear()
            self._caution_factors.clear()
        self._tables[cores, max_rows] = made
        return made

    def cost_table(self, cores: float, max_rows: int) -> list[float]:
        """``[0, u(1) … u(max_rows)]``: seconds of this size that a batch uses up in the long run, at least its latency.

        The list is shared until the next sample: read it, never write. Raises ValueError unless cores are above 0.
        """
        known = self._costs.get((cores, max_rows))
        if known is not None:
            return known
        median, _ = self.tables(cores, max_rows)
        made = median
        if self.costs is not self.learner:
            params = self.costs.params
            slope, base = params.gamma / cores + params.delta, params.epsilon / cores + params.eta
            made = [max(seconds, slope * rows + base) for rows, seconds in enumerate(median)]
            made[0] = 0.0
        if len(self._costs) >= _TABLES_KEPT:
            self._costs.clear()
        self._costs[cores, max_rows] = made
        return made

    def cost_s(self, rows: int, cores: float) -> float:
        """One entry of `cost_table`, in O(1)."""
        seconds = self.predict_s(rows, cores)
        return seconds if self.costs is self.learner else max(seconds, self.costs.params.latency_s(rows, cores))

    def _cautious(self, median: list[float], params: LatencyParams, cores: float) -> list[float]:
        column = self._factors(core_bucket(cores), len(median) - 1)
        cautious = [seconds * weight for seconds, weight in zip(median, column.weights, strict=True)]
        for first, last, inverse, weight in column.larger_sizes:
            slope, base = params.gamma * inverse + params.delta, params.epsilon * inverse + params.eta
            # Both are straight lines. One that is lower at both ends is lower all along, and it nearly always is.
            if (slope * first + base) * weight > cautious[first] or (slope * last + base) * weight > cautious[last]:
                for rows in range(first, last + 1):
                    cautious[rows] = max(cautious[rows], (slope * rows + base) * weight)
        cautious = list(accumulate(cautious, max))
        wait_s = longest_wait_s(cores, self._threads, self._period_s)
        return [0.0, *(seconds + wait_s for seconds in cautious[1:])] if wait_s else cautious

    def _factors(self, column: int, max_rows: int) -> _CautionFactors:
        known = self._caution_factors.get((column, max_rows))
        if known is not None:
            return known
        if not self._factors_of_regions:
            self._factors_of_regions = self._measured_factors()
        weights, larger_sizes = [0.0], []
        first = 1
        for row in range(row_bucket(max_rows) + 1):
            last = min(1 << row, max_rows)
            by_cores = self._factors_of_regions.get(row) or self._factors_of_regions[_UNSEEN_ROWS]
            own = most = by_cores[column - LEAST_CORE_BUCKET]
            weights += [own] * (last + 1 - first)
            for other in range(column + 1, MOST_CORE_BUCKET + 1):
                weight = by_cores[other - LEAST_CORE_BUCKET]
                if weight > most:
                    most = weight
                    larger_sizes.append((first, last, 2.0**-other, weight))
            first = last + 1
        made = self._caution_factors[column, max_rows] = _CautionFactors(weights, larger_sizes)
        return made

    def _measured_factors(self) -> dict[int, list[float]]:
        """e^(caution·σ) by row bucket, then by core bucket. `_UNSEEN_ROWS` stands for all row buckets without a sample."""
        shared = exp(self._caution * self.spread.sigma((_UNSEEN_ROWS, 0)))
        weights = {_UNSEEN_ROWS: [shared] * (MOST_CORE_BUCKET - LEAST_CORE_BUCKET + 1)}
        for row, column in self.spread.regions:
            by_cores = weights.setdefault(row, list(weights[_UNSEEN_ROWS]))
            by_cores[column - LEAST_CORE_BUCKET] = exp(self._caution * self.spread.sigma((row, column)))
        return weights
