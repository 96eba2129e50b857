"""The admission webhook's HTTPS server: three paths to the pure rules, and a certificate that is exchanged while it serves.

No content of a pod, no token and no key is logged here. Reviews share no state, so they may run side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from knative_sponge.bounded_protocol import PortLimits
from knative_sponge.controller.admission.admission_review import BadReview, Review, Verdict, read_review, write_review
from knative_sponge.controller.admission.bodies import LARGEST_REVIEW, READ_S, Bodies, BodiesTooLarge, BodyTooLarge
from knative_sponge.controller.admission.certificate import CertificateError, Certificates, expires_at
from knative_sponge.controller.admission.loop_share import BusyCaller, LoopShare
from knative_sponge.controller.admission.pod import Bounds, Mint, Room, no_profile, review_pod, unbounded, unlimited
from knative_sponge.controller.admission.service import mutate_service, validate_service
from knative_sponge.controller.cluster.limits import NO_LIMITS
from knative_sponge.controller.profiles.store import Lookup
from knative_sponge.errors import KubeError
from knative_sponge.listener import Listener
from knative_sponge.settings.controller import ControllerSettings

_LIMITS: Final = PortLimits(body=LARGEST_REVIEW + 2**20, bodies=32 * 2**20, connections=256, answer_s=30.0)
"""What is a little too large is refused by the application, which counts it. Each API server has a connection for each review
that is under way, and gives up after 30 s at most. Nobody else may ask, but the port cannot tell who does."""
_ABSENT_S: Final = 1.0
_PRESENT_S: Final = 10.0
_TELL_S: Final = 60.0
"""Between two mistakes that are logged."""

log = logging.getLogger(__name__)

Rule = Callable[[Review], Verdict]


class CertificateSource(Protocol):
    """A store of the certificates."""

    async def read(self) -> Certificates | None:
        """None when there are none yet. Raises KubeError, CertificateError."""
        ...


class WebhookServer:
    """Serves reviews as soon as there is a certificate. New connections get the latest certificate; open ones keep theirs."""

    def __init__(
        self,
        settings: ControllerSettings,
        certificates: CertificateSource,
        registry: CollectorRegistry,
        mint: Mint,
        *,
        lookup: Lookup = no_profile,
        room: Room = unlimited,
        bounds: Bounds = unbounded,
        host: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """mint: see `pod.Mint`. lookup: profiles by image. room: cores that nodes have for a new pod. bounds: what
        the administrator lets a namespace ask for. host: None is all interfaces. now: wall clock in Unix seconds."""
        self._certificates = certificates
        self._now = now
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        app = webhook_app(rules(settings.proxy_image, mint, lookup, room, bounds), registry)
        self._listener = Listener(app, host, settings.webhook_port, tls=self._tls, limits=_LIMITS)
        self._expiry = Gauge(
            "sponge_webhook_certificate_expiry_seconds",
            "When the served certificate ends, Unix time.",
            registry=registry,
        )
        self._shown: Certificates | None = None
        self._ends_at = 0.0
        self._woken = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Can the API server be answered? A certificate is served, has not expired, and is kept up to date."""
        return (
            self._shown is not None
            and self._now() < self._ends_at
            and self._following is not None
            and not self._following.done()
        )

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._listener.port

    def wake(self) -> None:
        """Read the certificates now."""
        self._woken.set()

    async def start(self) -> None:
        """Listen. Handshakes fail until there is a certificate. Raises OSError when the port cannot be bound."""
        await self._listener.start()
        self._following = asyncio.create_task(self._follow())
        self._following.add_done_callback(_tell_failure)

    async def stop(self) -> None:
        """Finish the reviews in flight and close the port."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._listener.stop()

    async def _follow(self) -> None:
        while True:
            self._woken.clear()
            try:
                found = await self._certificates.read()
                if found is not None and found != self._shown:
                    self._show(found)
            except (KubeError, CertificateError) as error:
                log.warning("webhook certificates cannot be read: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ABSENT_S if self._shown is None else _PRESENT_S):
                    await self._woken.wait()

    def _show(self, certificates: Certificates) -> None:
        # OpenSSL copies certificate and key when a connection begins, so the context may change while it is in use.
        _load(self._tls, certificates)
        self._shown = certificates
        self._ends_at = expires_at(certificates)
        self._expiry.set(self._ends_at)
        log.info("webhook: showing a certificate that ends in %.0f hours", (self._ends_at - self._now()) / 3600)


def _tell_failure(following: asyncio.Task[None]) -> None:
    if not following.cancelled() and (error := following.exception()) is not None:
        log.error("webhook: certificates are not followed any more, this replica gets unready", exc_info=error)


def rules(
    image: str, mint: Mint, lookup: Lookup = no_profile, room: Room = unlimited, bounds: Bounds = unbounded
) -> Mapping[str, Rule]:
    """The rule behind each path."""

    def mutate_pod(review: Review) -> Verdict:
        if review.operation != "CREATE" or review.new is None:
            return Verdict("untouched")
        return review_pod(review.new, image, mint, lookup, review.namespace, room, bounds)

    def validate(review: Review) -> Verdict:
        return validate_service(review, bounds(review.namespace) or NO_LIMITS)

    return {"/mutate/pods": mutate_pod, "/mutate/services": mutate_service, "/validate/services": validate}


def webhook_app(paths: Mapping[str, Rule], registry: CollectorRegistry) -> Starlette:
    """The ASGI application of these rules.

    Status 400 or 413: the body is no AdmissionReview. 408: it came too slowly. 503: the caller sends more than its share, or
    all together more than fits. 500: a rule raised.
    """
    share, bodies, mistakes = LoopShare(), Bodies(), _Mistakes()
    reviews = Counter(
        "sponge_webhook_reviews", "Admission reviews by webhook and outcome.", ["webhook", "outcome"], registry=registry
    )

    def endpoint(path: str, rule: Rule) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            outcome = "error"
            caller = "" if request.client is None else request.client.host
            try:
                await share.turn(caller)
                async with bodies.one(request.stream()) as body:
                    begun_s = time.thread_time()
                    try:
                        review = read_review(body)
                        verdict = rule(review)
                        outcome = verdict.outcome
                        log.debug("%s %s/%s: %s", path, review.namespace, review.name, outcome)
                        return Response(write_review(review, verdict), media_type="application/json")
                    finally:
                        share.spent(caller, time.thread_time() - begun_s)
            except BodyTooLarge:
                outcome = "too-large"
                return PlainTextResponse(f"a review has at most {LARGEST_REVIEW} bytes\n", 413)
            except TimeoutError:
                outcome = "too-slow"
                return PlainTextResponse(f"a review comes within {READ_S:g} s\n", 408, {"connection": "close"})
            except ClientDisconnect:
                outcome = "gone"
                return Response(status_code=400)  # nobody reads it
            except (BusyCaller, BodiesTooLarge) as error:
                outcome = "busy"
                return PlainTextResponse(f"{error}\n", 503)
            except BadReview as error:
                outcome = "bad-review"
                return PlainTextResponse(f"{error}\n", 400)
            except Exception:
                mistakes.tell(path)
                return PlainTextResponse("this object cannot be judged\n", 500)
            finally:
                reviews.labels(path.strip("/"), outcome).inc()

        return answer

    return Starlette(routes=[Route(path, endpoint(path, rule), methods=["POST"]) for path, rule in paths.items()])


class _Mistakes:
    """Logs exceptions that no rule should raise, but not all: any pod can send an object of a shape that no API server lets
    through, and would fill the log."""

    def __init__(self) -> None:
        self._told_s = -math.inf

    def tell(self, path: str) -> None:
        """Log the exception that is being handled, if none was logged of late."""
        if time.monotonic() - self._told_s >= _TELL_S:
            self._told_s = time.monotonic()
            log.exception("%s: a review that cannot be judged", path)


def _load(context: ssl.SSLContext, certificates: Certificates) -> None:
    """OpenSSL reads files only. These are in memory: the key is on no disk, and the root file system may be read-only.

    Raises CertificateError.
    """
    with _memory_file(certificates.serving) as serving, _memory_file(certificates.key) as key:
        try:
            context.load_cert_chain(serving, key)
        except ssl.SSLError as error:
            raise CertificateError(f"OpenSSL does not take them: {error.reason}") from error


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    number = os.memfd_create("certificate")
    try:
        os.write(number, content)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
