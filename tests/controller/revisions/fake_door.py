"""The activators as the test says, instead of their metrics."""

from __future__ import annotations

from collections.abc import Callable

from knative_sponge.controller.kube.resource import Key


class FakeColdRequests:
    """Requests for revisions without pods, as the test says. heard: revisions that are listened for."""

    def __init__(self) -> None:
        self.available = False
        self.lost = True
        self.heard: set[Key] = set()
        self.idle_s: float | None = None
        self._requests = 0

    def subscribe(self, on_request: Callable[[Key], None], seen: Callable[[], None]) -> None:
        self._knocked, self._seen = on_request, seen

    def expect(self, key: Key, yes: bool) -> None:
        if yes:
            self.heard.add(key)
        else:
            self.heard.discard(key)
            self._requests = 0  # a pod takes it

    def pending(self, key: Key) -> int:
        return self._requests if key in self.heard else 0

    def open(self, *, available: bool) -> None:
        self.available, self.lost = available, not available
        self._seen()

    def request(self) -> None:
        self._requests = 1
        for key in list(self.heard):
            self._knocked(key)
