"""Dashboard and alerts ask only for metrics, labels and values that the code shows, and the documentation knows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from knative_sponge.controller.reporting.metrics import Metrics as ControllerMetrics
from knative_sponge.proxy.queue.metrics import Metrics as ProxyMetrics

ROOT = Path(__file__).parent.parent.parent
MONITORING = ROOT / "manifests" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboard.json").read_text())
(RULES,) = yaml.safe_load_all((MONITORING / "prometheus-operator" / "alerts.yaml").read_text())
MONITORS = list(yaml.safe_load_all((MONITORING / "prometheus-operator" / "monitors.yaml").read_text()))
TARGET_LABELS = {"namespace", "revision"}
"""What scraping adds to every metric of a pod (`monitors.yaml`)."""
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


class Known(NamedTuple):
    """A metric of the code. values: of each label, as far as they are fixed in the code."""

    labels: frozenset[str]
    values: dict[str, set[str]]


def registered(registry: CollectorRegistry) -> Iterator[tuple[str, Known]]:
    collectors: list[Collector] = list(registry._collector_to_names)
    for collector in collectors:
        labels: tuple[str, ...] = getattr(collector, "_labelnames", ())
        children: dict[tuple[str, ...], Any] = getattr(collector, "_metrics", {}) if labels else {}
        values = {label: {child[i] for child in children} for i, label in enumerate(labels) if children}
        for family in collector.collect():
            for suffix in SUFFIXES.get(family.type, ()):
                extra = {"le"} if suffix == "_bucket" else set()
                yield family.name + suffix, Known(frozenset({*labels, *extra}), values)


def known() -> dict[str, Known]:
    """Every series of both programs, by name; those that are registered elsewhere by the name in the source."""
    found = {**dict(registered(ProxyMetrics().registry)), **dict(registered(ControllerMetrics().registry))}
    for path in ("proxy/queue/wiring.py", "controller/admission/webhook.py"):
        for name in re.findall(r'"(sponge_[a-z_]+)"', (ROOT / "knative_sponge" / path).read_text()):
            found.setdefault(name, Known(frozenset(), {}))
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for group in RULES["spec"]["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of everything that is asked."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for alert in alerts():
        yield alert["alert"], alert["expr"]


QUERIES = list(queries())
KNOWN = known()


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_names_what_the_code_shows(where: str, query: str) -> None:
    selectors = re.findall(r"\b(sponge_[a-z_]+)(?:\{([^}]*)\})?", query)
    assert selectors
    for name, matchers in selectors:
        assert name in KNOWN
        labels, values = KNOWN[name]
        matched = re.findall(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"', matchers)
        assert ",".join(f'{label}{how}"{value}"' for label, how, value in matched) == matchers
        for label, how, value in matched:
            assert label in labels | TARGET_LABELS
            if label in values:
                assert set(value.split("|") if "~" in how else [value]) <= values[label]
    labels_of_all = set.union(*(set(KNOWN[name].labels) for name, _ in selectors)) | TARGET_LABELS
    for grouped in re.findall(r"\bby \(([^)]*)\)", query):
        assert set(re.split(r",\s*", grouped)) <= labels_of_all
    if "histogram_quantile" in query:
        assert re.search(r"by \(le\b", query)


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_is_balanced_and_rates_only_what_counts(where: str, query: str) -> None:
    stack = []
    for sign in re.sub(r'"[^"]*"', "", query):
        if sign in "([{":
            stack.append(sign)
        elif sign in ")]}":
            assert stack
            assert stack.pop() + sign in ("()", "[]", "{}")
    assert not stack
    counted = {name for name, _ in re.findall(r"rate\((sponge_[a-z_]+)(\{[^}]*\})?\[", query)}
    assert len(re.findall(r"\brate\(", query)) == len(
        re.findall(r"\brate\(sponge_[a-z_]+(?:\{[^}]*\})?\[[^]]+\]\)", query)
    )
    for name in re.findall(r"\bsponge_[a-z_]+", query):
        assert (name in counted) == name.endswith(("_total", "_bucket", "_sum", "_count"))


def test_everything_the_controller_shows_of_cores_and_resizes_is_on_the_dashboard() -> None:
    shown = {name for panel in panels() for t in panel["targets"] for name in re.findall(r"sponge_[a-z_]+", t["expr"])}
    for name in dict(registered(ControllerMetrics().registry)):
        assert name in shown or name.endswith(("_sum", "_count")), name


def test_what_a_proxy_shows_of_its_cores_and_of_the_requests_it_only_passes_on_is_on_the_dashboard() -> None:
    shown = {name for panel in panels() for t in panel["targets"] for name in re.findall(r"sponge_[a-z_]+", t["expr"])}
    wiring = (ROOT / "knative_sponge" / "proxy" / "queue" / "wiring.py").read_text()
    gauges = set(re.findall(r'\("(sponge_[a-z_]+)", "', wiring))
    assert "sponge_cores" in gauges
    assert gauges | {"sponge_passed_through_total"} <= shown


def test_a_machine_without_an_autoscaler_has_no_leader_to_miss() -> None:
    """Each operand needs a series of an autoscaler, or of a pod that a cluster's scraping has labelled."""
    (alert,) = (alert for alert in alerts() if alert["alert"] == "SpongeNoLeader")
    operands = re.split(r"\bor\b", alert["expr"])
    assert all(re.search(r'sponge_leader|sponge_cores\{revision!="",namespace!=""\}', operand) for operand in operands)


def test_panels_lie_side_by_side_and_have_one_number_each() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_every_panel_says_what_it_shows_and_reads_the_chosen_source() -> None:
    for panel in panels():
        assert panel["description"].endswith(".")
        assert {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])} == {"${datasource}"}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert re.fullmatch(r"\d+[mh]", alert["for"])
    assert {"summary", "description"} == set(alert["annotations"])
    by = {label for group in re.findall(r"\bby \(([^)]*)\)", alert["expr"]) for label in re.split(r",\s*", group)}
    single = {label for name in re.findall(r"sponge_[a-z_]+", alert["expr"]) for label in KNOWN[name].labels}
    used = set(re.findall(r"\$labels\.([a-z_]+)", " ".join(alert["annotations"].values())))
    assert used <= (by or single)


def test_every_alert_is_explained() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    assert set(re.findall(r"^\| `(Sponge[A-Za-z]+)` \|", text, re.MULTILINE)) == {alert["alert"] for alert in alerts()}


def test_the_autoscaler_is_scraped_under_its_own_labels_and_pods_on_the_metrics_port() -> None:
    service, pods = MONITORS
    (endpoint,) = service["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    (endpoint,) = pods["spec"]["podMetricsEndpoints"]
    ports = {rule["replacement"] for rule in endpoint["relabelings"] if rule.get("targetLabel") == "__address__"}
    assert ports == {"$1:9091", "[$1]:9091"}
    keep = next(rule for rule in endpoint["relabelings"] if rule.get("action") == "keep")
    assert (keep["sourceLabels"], keep["regex"]) == (
        ["__meta_kubernetes_pod_annotation_knative_sponge_dev_proxy"],
        "sponge",
    )


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders overlays")
def test_the_rendered_overlay_has_the_dashboard_whole() -> None:
    command = ["kubectl", "kustomize", str(MONITORING / "prometheus-operator")]
    rendered = subprocess.run(command, capture_output=True, check=True, timeout=60)
    items = {item["kind"]: item for item in yaml.safe_load_all(rendered.stdout)}
    assert set(items) == {"ConfigMap", "ServiceMonitor", "PodMonitor", "PrometheusRule"}
    for item in items.values():
        assert item["metadata"]["namespace"] == "knative-sponge"
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "knative-sponge"
    kubernetes_validate.validate(items["ConfigMap"], "1.34", strict=True)
    assert items["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = items["ConfigMap"]["data"].values()
    assert json.loads(text) == DASHBOARD
