"""The certificate of the TLS port, read again when its files change; opens no port and drops no connection."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import ClassVar, Final

from knative_sponge.errors import SettingError
from knative_sponge.settings import ProxySettings

logger = logging.getLogger(__name__)

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_FileState = tuple[tuple[int, int, int], ...]


class Certificates:
    """A server's TLS context, of `tls.crt` and `tls.key` in the directory of the settings.

    A handshake takes the pair that was read last; connections keep theirs. A new pair that cannot be used is logged, and
    the pair before it stays. Raises SettingError when the first pair cannot be used.
    """

    check_s: ClassVar[float] = 60.0
    """How often the files are looked at, as in Go's queue-proxy."""

    def __init__(self, settings: ProxySettings) -> None:
        folder = Path(settings.certificates)
        self._certificate = folder / "tls.crt"
        self._key = folder / "tls.key"
        self._minimum = _VERSIONS[settings.tls_min_version]
        self._maximum = _VERSIONS.get(settings.tls_max_version or "", ssl.TLSVersion.MAXIMUM_SUPPORTED)
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._read_state = self._file_state()
            self._newest = self.context = self._read()
        except (OSError, ValueError) as error:
            raise SettingError(
                "SPONGE_CERTIFICATES", settings.certificates, f"a usable pair of tls.crt and tls.key ({error})"
            ) from error
        # Asked at every handshake, whether the client names a host or not.
        self.context.sni_callback = self._choose

    @classmethod
    def mounted(cls, settings: ProxySettings) -> Certificates | None:
        """Those of the settings; None when the files are not there. Raises SettingError when they cannot be used."""
        folder = Path(settings.certificates)
        if not all((folder / name).exists() for name in ("tls.crt", "tls.key")):
            return None
        return cls(settings)

    def start(self) -> None:
        """Begin to look at the files. Needs a running loop."""
        self._timer = asyncio.get_running_loop().call_later(self.check_s, self._check)

    def stop(self) -> None:
        """Look at them no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self.start()
        try:
            state = self._file_state()
            if state == self._read_state:
                return
            self._read_state = state
            self._newest = self._read()
        except (OSError, ValueError) as error:
            logger.warning("the new certificate cannot be used, the one before stays: %s", error)
        else:
            logger.info("a new certificate is in use")

    def _file_state(self) -> _FileState:
        """What changes when a file is replaced. Raises OSError."""
        stats = [path.stat() for path in (self._certificate, self._key)]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    def _read(self) -> ssl.SSLContext:
        """A context of its own for each pair, so that a pair that does not match spoils none in use."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        context.maximum_version = self._maximum
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._certificate, self._key)
        return context

    def _choose(self, connection: ssl.SSLObject, _host: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest
