"""The activators as the test says, instead of their metrics."""

from __future__ import annotations

from collections.abc import Callable

from knative_sponge.controller.kube.resource import Key


class FakeColdRequests:
    """Requests for revisions without pods, as the test says."""

    def __init__(self) -> None:
        self.visible = False
        self.lost = True
        self.expected: set[Key] = set()
        self.idle_s: float | None = None
        self._requests = 0

    def subscribe(self, on_request: Callable[[Key], None], on_view: Callable[[], None]) -> None:
        self._on_request, self._on_view = on_request, on_view

    def expect(self, key: Key, yes: bool) -> None:
        if yes:
            self.expected.add(key)
        else:
            self.expected.discard(key)
            self._requests = 0  # a pod takes it

    def pending(self, key: Key) -> int:
        return self._requests if key in self.expected else 0

    def open(self, *, visible: bool) -> None:
        self.visible, self.lost = visible, not visible
        self._on_view()

    def request(self) -> None:
        self._requests = 1
        for key in list(self.expected):
            self._on_request(key)
