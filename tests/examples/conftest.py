"""The example server is a program of its own, not part of the package: its folder goes on the path for its tests."""

from __future__ import annotations

import sys
from pathlib import Path

SERVER = Path(__file__).parents[2] / "examples" / "ocr-server"
sys.path.insert(0, str(SERVER))
