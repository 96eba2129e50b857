"""What the latency model costs on the path of a scheduler, and how well it predicts while it learns.

    python -m benchmarks.latency_model [--rounds 300] [--seeds 10]

Times are the median of `--rounds`, in microseconds of one core, after a model has learned 600 calls. Errors are
|ln(predicted/true)| before each of 600 noisy calls (10 % noise, 1 % of them 3 to 10 times too slow) at core counts that
wander between 1 and 16, without any prior, on the two published profiles (interpolated) and on a curve of the model's
form.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from math import exp, log
from statistics import mean, median

from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.offline_fit import fit_latency
from tests.core.profiles import RESNET18_OTHER_SOURCE, YOLOV5S, interpolated, samples_of, wandering

Latency = Callable[[int, float], float]

ROWS = 32
SIZES = tuple(0.5 + 1.07 * step for step in range(14))
"""Core counts of one bisection, about: the solver asks for tables at each."""


def calls(latency: Latency, most_rows: int, count: int, rng: random.Random) -> Iterator[tuple[Sample, float]]:
    """Noisy calls with their true latency."""
    for rows, cores in wandering(count, rng, most_rows):
        true = latency(rows, cores)
        wild = rng.uniform(3.0, 10.0) if rng.random() < 0.01 else 1.0
        yield Sample(rows, cores, true * exp(rng.gauss(0.0, 0.1)) * wild), true


def microseconds(action: Callable[[int], object], rounds: int, before: Callable[[int], object] | None = None) -> float:
    """Median time of an action; `before` runs untimed ahead of each."""
    times = []
    for step in range(rounds):
        if before is not None:
            before(step)
        begun = time.perf_counter()
        action(step)
        times.append(time.perf_counter() - begun)
    return median(times) * 1e6


def costs(rounds: int) -> None:
    """Print what each operation costs."""
    rng = random.Random(1)
    truth = interpolated(YOLOV5S)
    model = LatencyModel()
    samples = [sample for sample, _ in calls(truth, ROWS, 600 + rounds, rng)]
    for sample in samples[:600]:
        model.observe(sample, 0.0)
    fresh = samples[600:]

    def learn_and_solve(step: int) -> None:
        model.observe(fresh[step], 0.0)
        model.predict_s(4, 2.0)

    def every_size(_: int) -> None:
        for cores in SIZES:
            model.tables(cores, ROWS)

    def surprise(step: int) -> None:
        usual = fresh[step]
        model.observe(Sample(usual.rows, usual.cores, usual.seconds * 4.0), 0.0)
        model.predict_s(4, 2.0)

    grid = samples_of(YOLOV5S)
    show(
        f"observe, and the solve it calls for ({len(model.learner.regions)} regions)",
        microseconds(learn_and_solve, rounds),
    )
    show("  the same when it is a surprise", microseconds(surprise, rounds, learn_and_solve))
    each_size = microseconds(every_size, rounds, learn_and_solve)
    show(f"tables of {ROWS} rows, each of {len(SIZES)} sizes after a sample", each_size / len(SIZES))
    show("  one size asked for again", microseconds(lambda _: model.tables(2.0, ROWS), rounds))
    show("predict_s", microseconds(lambda _: model.predict_s(4, 2.0), rounds))
    show(f"offline fit of {len(grid)} points", microseconds(lambda _: fit_latency(grid), 20))


def show(what: str, microseconds_each: float) -> None:
    """Print one line."""
    print(f"{what:50s} {microseconds_each:8.1f} µs")


def errors(seeds: int) -> None:
    """Print the errors of predictions while the model learns."""
    curve = LatencyParams(0.02, 0.002, 0.01, 0.003)
    models: dict[str, tuple[Latency, int]] = {
        "YOLOv5s": (interpolated(YOLOV5S), 8),
        "ResNet18": (interpolated(RESNET18_OTHER_SOURCE), 16),
        "a curve of the form": (curve.latency_s, ROWS),
    }
    print("\nmean error (95 %)         calls 2–30      calls 31–600")
    for name, (latency, most_rows) in models.items():
        early: list[float] = []
        late: list[float] = []
        for seed in range(seeds):
            model = LatencyModel()
            for call, (sample, true) in enumerate(calls(latency, most_rows, 600, random.Random(seed)), 1):
                if call > 1:
                    error = abs(log(model.predict_s(sample.rows, sample.cores) / true))
                    (early if call <= 30 else late).append(error)
                model.observe(sample, 0.0)
        shown = [f"{mean(kind):6.1%} ({sorted(kind)[int(0.95 * len(kind))]:5.1%})" for kind in (early, late)]
        print(f"{name:22s}  {shown[0]:>15s}   {shown[1]:>15s}")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="timed repetitions of each operation")
    parser.add_argument("--seeds", type=int, default=10, help="histories learned from per model")
    options = parser.parse_args()
    costs(options.rounds)
    errors(options.seeds)


if __name__ == "__main__":
    main()
