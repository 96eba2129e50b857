"""The example model server, a real network, on the cluster: what a first user does."""

from __future__ import annotations

import json
from typing import Any

from e2e.harness.client import Response, together
from e2e.harness.services import SLO, Services
from e2e.tests.conftest import Measure
from knative_sponge.profile.inputs import image_call, pictures

_INFER = "/v2/models/ocr/infer"


def _read(answer: Response) -> tuple[Any, bytes]:
    """An answer's JSON and its tensors, byte for byte."""
    at = int(answer.headers["inference-header-content-length"])
    return json.loads(answer.body[:at]), answer.body[at:]


def test_a_text_detector_reads_the_same_in_batches_as_alone(services: Services, measure: Measure) -> None:
    annotations = {SLO: "20s", "knative-sponge.dev/cpu-hook": "/cpu"}
    service = services.create("ocr", "ocr-server", annotations=annotations, more=["--request", "cpu=300m"])
    calls = [image_call([picture.jpeg]) for picture in pictures()]

    def ask(number: int) -> Response:
        return service.client.request("POST", _INFER, body=calls[number].content, headers=calls[number].headers)

    alone = [ask(number) for number in range(len(calls))]
    batched = together([lambda n=number: ask(n) for number in range(len(calls))])  # type: ignore[misc]
    assert [answer.status for answer in (*alone, *batched)] == [200] * 2 * len(calls)
    assert [_read(answer) for answer in batched] == [_read(answer) for answer in alone]
    sizes = [int(answer.headers["sponge-batch"]) for answer in batched]
    assert max(sizes) > 1
    measure("batches in which the pictures went", sizes)
    measure("slowest alone, s", round(max(answer.seconds for answer in alone), 3))
    measure("slowest together, s", round(max(answer.seconds for answer in batched), 3))
