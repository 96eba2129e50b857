"""`python -m e2e.cluster [--provider bare|kind] up | down | load FILE`: a cluster by hand. Tests use the providers."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from e2e.cluster.provider import ClusterError
from e2e.cluster.providers import PROVIDERS, provider


def main() -> int:
    """0 when it was done; 1 with the reason otherwise."""
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    parser.add_argument("--provider", choices=PROVIDERS, default="bare")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="make the cluster unless it is up")
    verbs.add_parser("down", help="leave nothing of it behind")
    verbs.add_parser("load", help="make an image available to pods").add_argument("archive", type=Path)
    args = parser.parse_args()
    chosen = provider(args.provider)
    try:
        if args.verb == "up":
            with contextlib.redirect_stdout(sys.stderr):  # what is left is for eval
                cluster = chosen.up()
            print(
                f"export KUBECONFIG={cluster.kubeconfig}\nexport PATH={cluster.kubectl.parent}:{cluster.kn.parent}:$PATH"
            )
            print(f"# services answer at {cluster.ingress} with Host <service>.<namespace>.{cluster.domain}")
        elif args.verb == "down":
            chosen.down()
        else:
            chosen.load(args.archive)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
