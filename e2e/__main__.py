"""`python -m e2e [--provider bare|kind] [--keep] [pytest arguments]`: cluster up, product installed, tests, cluster down."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from e2e.cluster.places import REPOSITORY, cache
from e2e.cluster.provider import Cluster, ClusterError, Provider
from e2e.cluster.providers import PROVIDERS, provider
from e2e.harness.kube import Kube
from e2e.harness.outcomes import Outcomes
from e2e.harness.report import Report
from e2e.install import build_images, install
from e2e.running import Running, begin

_HERE = Path(__file__).parent
_REPORT = REPOSITORY / "out" / "e2e" / "report.json"
_OPTIONS = ("--timeout", "300", "-v")


def main() -> int:
    """pytest's exit status; 1 when there is no cluster to run on."""
    parser = argparse.ArgumentParser(prog="python -m e2e", description=__doc__)
    parser.add_argument("--provider", choices=PROVIDERS, default="bare")
    parser.add_argument("--keep", action="store_true", help="use a cluster that is up, and leave it up")
    args, more = parser.parse_known_args()
    chosen = provider(args.provider)
    report = Report()
    status = 1
    try:
        before = _built()
        with report.phase("build"):
            chosen.prepare()
        named = [word for word in more if Path(word.partition("::")[0]).exists()]
        # Needs what the bare cluster is built from, and no cluster.
        failed = 0 if named or chosen.name != "bare" else _test_api(more, report)
        cluster = _prepare(chosen, report, before)
        begin(Running(chosen, cluster, report))
        here = str(_HERE / "tests")
        with report.phase("tests"):
            status = int(pytest.main([*_OPTIONS, *([] if named else [here]), *more])) or failed
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
    finally:
        if not args.keep:
            status = _end(chosen, report) or status
    report.write(_REPORT)
    print(f"==> {_REPORT.relative_to(REPOSITORY)}")
    return status


def _end(chosen: Provider, report: Report) -> int:
    with report.phase("down"):
        try:
            chosen.down()
        except ClusterError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


def _test_api(more: list[str], report: Report) -> int:
    """pytest's exit status for the tests that bring their own API server; 0 when none is chosen."""
    with report.phase("api"):
        status = int(pytest.main([*_OPTIONS, str(_HERE / "tests_api"), *more], plugins=[Outcomes(report)]))
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status


def _prepare(chosen: Provider, report: Report, before: set[str]) -> Cluster:
    with report.phase("images"):
        archives = build_images()
    report.cold = _built() != before
    with report.phase("up"):
        cluster = chosen.up()
        for archive in archives:
            chosen.load(archive)
    with report.phase("install"):
        install(Kube(cluster), chosen.name)
    return cluster


def _built() -> set[str]:
    """Names of everything that is kept: a run that adds to them is cold."""
    return {str(path) for folder in ("bin", "images") for path in (cache() / folder).glob("*")}


if __name__ == "__main__":
    sys.exit(main())
