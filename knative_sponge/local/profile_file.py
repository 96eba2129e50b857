"""Latency profiles as files: checked before anything starts, written so that a reader never sees half of one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from knative_sponge.core.latency.profile import from_json
from knative_sponge.errors import ProfileError, SettingError, WireError
from knative_sponge.wire.client import AdminClient

SAVE_PERIOD_S: Final = 60.0
_LARGEST: Final = 2**20
"""Bytes; real ones have some thousands."""


def check_profile(path: Path) -> None:
    """Raises SettingError when the proxy could not start from this file."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ProfileError(f"more than {_LARGEST} bytes")
        from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, ProfileError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, ValueError):
            why = f"not JSON: {why}"
        raise SettingError("profile", str(path), f"a file with a latency profile ({why})") from error


def check_writable(path: Path) -> None:
    """Raises SettingError when no profile can be put there."""
    folder = path.parent
    why = ""
    if path.is_dir():
        why = "it is a folder"
    elif not folder.is_dir():
        why = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        why = f"{folder} may not be written to"
    if why:
        raise SettingError("save-profile", str(path), f"a file that can be written ({why})")


def write_profile(path: Path, model: Mapping[str, Any]) -> None:
    """Put a latency model where `check_profile` reads it, in one step. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(model) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


class ProfileSaver:
    """Writes what the proxy has learned to a file, now and then, and when it is told to."""

    def __init__(
        self, admin: AdminClient, path: Path, trouble: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        self._admin = admin
        self._path = path
        self._trouble = trouble
        self._say = say

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SAVE_PERIOD_S)
            await self._save(self._trouble)

    async def finish(self) -> None:
        """Write it once more, and say so."""
        samples = await self._save(self._say)
        if samples == 0:
            self._say(f"nothing was learned: {self._path} is as it was")
        elif samples is not None:
            self._say(f"the latency model of {samples} calls is in {self._path}")

    async def _save(self, trouble: Callable[[str], None]) -> int | None:
        """Calls that the model was learned from; None when it could not be fetched or written."""
        try:
            model = (await self._admin.state()).model
            samples = int(model.get("samples", 0))
            if samples:
                await asyncio.to_thread(write_profile, self._path, model)
        except (WireError, OSError, ValueError, TypeError) as error:
            trouble(f"the latency model was not saved: {error}")
            return None
        return samples
