"""Runs other programs, each with a time limit and its output kept for the error message. The only module that does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from e2e.cluster.provider import ClusterError

_SHOWN = 3000


class Runner(Protocol):
    """A way to run a program to its end; tests pass one that only writes down what it was asked."""

    def __call__(
        self,
        args: Sequence[str | Path],
        *,
        timeout_s: float = 60.0,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Its standard output. Raises ClusterError when it fails, is missing or takes longer than `timeout_s`."""
        ...


def run(
    args: Sequence[str | Path],
    *,
    timeout_s: float = 60.0,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """See `Runner`. `env` is added to the environment of this process."""
    words = [str(arg) for arg in args]
    shown = " ".join(words)[:300]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed (wanted for: {shown})") from error
    except subprocess.TimeoutExpired as error:
        output = error.stderr or error.stdout or b""
        text = output.decode(errors="replace") if isinstance(output, bytes) else output
        raise ClusterError(f"no end after {timeout_s:g} s: {shown}\n{text[-_SHOWN:]}") from error
    if done.returncode:
        raise ClusterError(f"exit status {done.returncode}: {shown}\n{(done.stderr + done.stdout)[-_SHOWN:]}")
    return done.stdout
