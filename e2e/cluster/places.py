"""Where things are: what may be kept between runs, and what must be gone after `down`. Makes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
MODULES: Final = REPOSITORY / "e2e" / "bare"
"""The Go modules that the bare cluster is built from."""


def cache() -> Path:
    """Builds and images, kept between runs: `${XDG_CACHE_HOME:-~/.cache}/knative-sponge/e2e`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "knative-sponge" / "e2e"


def run_directory() -> Path:
    """All state of the running bare cluster; its path must stay short, since sockets lie in it."""
    return Path("/var/lib/knative-sponge-e2e")
