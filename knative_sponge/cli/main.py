"""The entry point of `sponge`: finds the verb, imports only that verb, turns errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

import knative_sponge
from knative_sponge.errors import SettingError, SpongeError


class Verb(NamedTuple):
    """module: has `main(argv) -> exit code`. extra: the extra to install for it. summary: one line for `sponge --help`."""

    module: str
    extra: str
    summary: str


VERBS: Final[dict[str, Verb]] = {
    "run": Verb("knative_sponge.cli.run", "cli", "serve a model server on this machine, its cores following deadlines"),
    "demo": Verb(
        "knative_sponge.cli.demo.command", "demo", "a text detector under a surging load, served in four ways, compared"
    ),
    "top": Verb("knative_sponge.cli.top", "cluster", "what every revision of a cluster has, wants and misses"),
    "explain": Verb("knative_sponge.cli.explain", "cluster", "why a revision, or a local server, has the cores it has"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed, 2 impossible arguments, 130 interrupted. `run` returns its server's own."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] not in VERBS:
        return _without_verb(args)
    verb = VERBS[args[0]]
    try:
        return int(importlib.import_module(verb.module).main(args[1:]))
    except ModuleNotFoundError as error:  # of the verb, or of what it imports only when it is needed
        if (error.name or "").startswith("knative_sponge"):
            raise
        print(f"sponge {args[0]}: needs {error.name}; in a checkout: pip install '.[{verb.extra}]'", file=sys.stderr)
        return 1
    except SettingError as error:
        print(f"sponge {args[0]}: {error}", file=sys.stderr)
        return 2
    except SpongeError as error:
        print(f"sponge {args[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _without_verb(args: list[str]) -> int:
    width = max(map(len, VERBS))
    parser = argparse.ArgumentParser(
        prog="sponge",
        description="Deadline-aware model serving.",
        epilog="\n".join(["verbs:", *(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sponge {knative_sponge.__version__}")
    parser.add_argument("verb", nargs="?", choices=VERBS, metavar="VERB", help="`sponge VERB --help` tells more")
    parser.parse_args(args)
    parser.print_help()
    return 0
