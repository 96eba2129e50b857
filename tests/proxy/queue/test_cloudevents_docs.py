"""What docs/cloudevents.md and its example say holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from knative_sponge.codec.base import RequestHead
from knative_sponge.codec.select import codec_for
from knative_sponge.errors import Reason
from knative_sponge.settings import ServingSettings

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "cloudevents"


def objects(kind: str) -> dict[str, Any]:
    """The example's objects of a kind, by name."""
    found = [item for path in sorted(EXAMPLE.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text())]
    return {item["metadata"]["name"]: item["spec"] for item in found if item["kind"] == kind}


def test_the_status_of_each_failure_is_as_documented() -> None:
    text = (ROOT / "docs" / "cloudevents.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    assert {name for name, _, _ in rows} == set(Reason)
    for name, in_time, late in rows:
        assert Reason(name).event_status(1.0) == int(in_time)
        assert Reason(name).event_status(0.0) == int(late)


def test_the_examples_events_reach_the_queue_and_its_replies_another_trigger() -> None:
    services, triggers = objects("Service"), objects("Trigger")
    infer, results = triggers["infer"], triggers["results"]
    annotations = services[infer["subscriber"]["ref"]["name"]]["template"]["metadata"]["annotations"]
    settings = ServingSettings.from_annotations(annotations)
    assert settings.slo_s is not None
    assert codec_for(settings.protocol).wants(RequestHead("POST", infer["subscriber"]["uri"].encode(), ()))
    kind = infer["filter"]["attributes"]["type"]
    assert results["filter"]["attributes"]["type"] == f"{kind}.reply"


def test_the_examples_references_are_to_objects_of_its_own() -> None:
    services, brokers = objects("Service"), objects("Broker")
    for trigger in objects("Trigger").values():
        assert trigger["broker"] in brokers
        assert trigger["subscriber"]["ref"]["name"] in services
        sink = trigger.get("delivery", brokers[trigger["broker"]]["delivery"])["deadLetterSink"]
        assert sink["ref"]["name"] in services
