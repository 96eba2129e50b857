"""The latency model that everything plans with: how long a batch takes on so many cores, likely and cautiously.
Learns only from what it is told; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from itertools import accumulate
from math import exp
from typing import Final, NamedTuple, TypedDict, Unpack

from knative_sponge.core.latency.credit import Credit, longest_wait_s
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
from knative_sponge.core.latency.fit import fit_latency
from knative_sponge.core.latency.learning import Learner
from knative_sponge.core.latency.spread import Spread

_TABLES_KEPT: Final = 64
"""Tables remembered between two samples: a solver asks for about 14 core counts at a time."""
_RESTORED_SAMPLES: Final = 10
"""Measurements that a restored curve of costs is worth: present ones soon weigh more, and where there are none it stands."""
_UNSEEN_ROWS: Final = -1
"""Row bucket that stands for all that were never seen."""


class ModelOptions(TypedDict, total=False):
    """The keyword arguments of LatencyModel that are not learned, for those who pass them on."""

    forgetting: float
    caution: float
    threads: int | None
    period_s: float


class _CautionFactors(NamedTuple):
    """How caution grows with rows in one core bucket.

    weights: e^(caution·σ) by rows, from 0 on. larger_sizes: (first row, last row, 1/cores, e^(caution·σ)) of larger sizes that
    scatter more, and so may call for more than the size asked about.
    """

    weights: list[float]
    larger_sizes: list[tuple[int, int, float, float]]


class LatencyModel:
    """Latency of (rows, cores), learned online (design §4).

    prior: where to start; only its shape matters once a sample has come. None is DEFAULT_SHAPE.
    forgetting: weight that a sample keeps when the next comes, above 0 and below 1.
    caution: how many σ of its region a cautious latency lies above the median.
    threads: runnable threads of the model server, for the CFS-quota term. None: it follows the cores, ⌈cores⌉ of them.
    period_s: CFS period; 0 where no quota is enforced.

    Never rises with cores and never falls with rows, neither the median nor the cautious latency, so that a solver may
    bisect over either. The spread of neighbouring regions would break that where it differs, and so the cautious
    latency is the upper hull: the most that any smaller batch, or any larger size, would be given. Values are
    compared, not σ: a scattered 5 ms on 16 cores says nothing about a steady 60 ms on one.

    The quota term is the longest that a batch waits for the next period once a neighbour, or its own start, used the
    quota up: ``P·(1 − c/k)`` while k threads outnumber the c cores. With k = ⌈c⌉ that is a sawtooth in c, and only its
    part below one core, the longest, is added. Its hull above would charge every whole core count for a wait that only
    the sizes just beyond it have; what throttling there is shows in their measured spread.

    Latency is what one batch takes, cost what it keeps cores busy for (`core/latency/credit.py`): deadlines of a batch's
    own requests are judged with the one, how many batches can follow each other with the other.
    """

    __slots__ = (
        "_caution",
        "_columns",
        "_costs",
        "_credit",
        "_period_s",
        "_tables",
        "_threads",
        "_weights",
        "costs",
        "last_sample_s",
        "learner",
        "spread",
        "version",
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
        self._columns: dict[tuple[int, int], _CautionFactors] = {}
        self._weights: dict[int, list[float]] = {}
        self.learner = Learner(prior or DEFAULT_SHAPE, forgetting)
        self.spread = Spread(forgetting)
        self.costs = self.learner
        """Learns what batches cost (`core/latency/credit.py`); the same as `learner` until a quota has told one from the
        other."""
        self.version = 0
        """Changes whenever a prediction may change."""
        self.last_sample_s: float | None = None
        """`now` of the last sample that was learned from."""

    @classmethod
    def fitted(cls, samples: Iterable[Sample], **levers: Unpack[ModelOptions]) -> LatencyModel:
        """A model that has seen an offline profile: the best fit as prior, and every sample as if it had just come."""
        known = list(samples)
        model = cls(fit_latency(known).params, **levers)
        for sample in known:
            model.observe(sample, 0.0)
        model.last_sample_s = None
        return model

    @property
    def params(self) -> LatencyParams:
        """The median curve now."""
        return self.learner.params

    def predict_s(self, rows: float, cores: float) -> float:
        """Median seconds of a batch: what hopeless is judged with."""
        return self.learner.params.latency_s(rows, cores)

    def cautious_s(self, rows: int, cores: float) -> float:
        """Seconds that a batch rarely exceeds, ``l·e^(caution·σ)`` and the quota term: what batches are sized with."""
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
        self.version += 1
        self._tables.clear()
        self._costs.clear()
        self._columns.clear()
        self._weights.clear()

    def restore_costs(self, params: LatencyParams) -> None:
        """Go on from what another model had learned of costs."""
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

        Shared until the next sample: read, never write. Raises ValueError unless cores are above 0.
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
            self._columns.clear()
        self._tables[cores, max_rows] = made
        return made

    def cost_table(self, cores: float, max_rows: int) -> list[float]:
        """``[0, u(1) … u(max_rows)]``: seconds of this size that a batch uses up in the long run, at least its latency.

        Shared until the next sample: read, never write. Raises ValueError unless cores are above 0.
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

    def _cautious(self, median: list[float], params: LatencyParams, cores: float) -> list[float]:
        column = self._column(core_bucket(cores), len(median) - 1)
        cautious = [seconds * weight for seconds, weight in zip(median, column.weights, strict=True)]
        for first, last, inverse, weight in column.larger_sizes:
            slope, base = params.gamma * inverse + params.delta, params.epsilon * inverse + params.eta
            # Straight lines: one that is lower at both ends is lower all along, as it nearly always is.
            if (slope * first + base) * weight > cautious[first] or (slope * last + base) * weight > cautious[last]:
                for rows in range(first, last + 1):
                    cautious[rows] = max(cautious[rows], (slope * rows + base) * weight)
        cautious = list(accumulate(cautious, max))
        wait_s = longest_wait_s(cores, self._threads, self._period_s)
        return [0.0, *(seconds + wait_s for seconds in cautious[1:])] if wait_s else cautious

    def _column(self, column: int, max_rows: int) -> _CautionFactors:
        known = self._columns.get((column, max_rows))
        if known is not None:
            return known
        if not self._weights:
            self._weights = self._factors_by_region()
        weights, larger_sizes = [0.0], []
        first = 1
        for row in range(row_bucket(max_rows) + 1):
            last = min(1 << row, max_rows)
            by_cores = self._weights.get(row) or self._weights[_UNSEEN_ROWS]
            own = most = by_cores[column - LEAST_CORE_BUCKET]
            weights += [own] * (last + 1 - first)
            for other in range(column + 1, MOST_CORE_BUCKET + 1):
                weight = by_cores[other - LEAST_CORE_BUCKET]
                if weight > most:
                    most = weight
                    larger_sizes.append((first, last, 2.0**-other, weight))
            first = last + 1
        made = self._columns[column, max_rows] = _CautionFactors(weights, larger_sizes)
        return made

    def _factors_by_region(self) -> dict[int, list[float]]:
        """e^(caution·σ) for every row bucket that was seen, by core bucket; and what all others share."""
        shared = exp(self._caution * self.spread.sigma((_UNSEEN_ROWS, 0)))
        weights = {_UNSEEN_ROWS: [shared] * (MOST_CORE_BUCKET - LEAST_CORE_BUCKET + 1)}
        for row, column in self.spread.regions:
            by_cores = weights.setdefault(row, list(weights[_UNSEEN_ROWS]))
            by_cores[column - LEAST_CORE_BUCKET] = exp(self._caution * self.spread.sigma((row, column)))
        return weights
