"""The pages show the limits that the code has. `python -m tests.test_docs_limits` writes the table anew."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from knative_sponge.bounded_protocol import PortLimits
from knative_sponge.controller.admission.bodies import READ_S
from knative_sponge.controller.admission.webhook import _LIMITS as WEBHOOK_LIMITS
from knative_sponge.core.quantity import format_duration
from knative_sponge.proxy.http.bounds import memory_budget, shares
from knative_sponge.proxy.queue.body import COPIES
from knative_sponge.settings import ControllerSettings, ProxySettings, ServingSettings
from knative_sponge.settings import controller as controller_settings
from knative_sponge.settings import proxy as proxy_settings

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("settings.md", "threat-model.md")
MARKS = ("<!-- limits: made from the code by tests/test_docs_limits.py -->\n", "<!-- end of limits -->\n")


@dataclass(frozen=True)
class Limit:
    """One line. what: begins with its unit, `bytes` or `time`, where it has one. places: annotations, variables, or a module
    below `knative_sponge` with a name in it. beyond: what happens then. unset: what holds where the default is none."""

    what: str
    places: tuple[str, ...]
    beyond: str
    unset: str = ""


LIMITS = (
    Limit("bytes of a request's head", ("SPONGE_MAX_HEAD",), "431"),
    Limit("fields of a request's head", ("SPONGE_MAX_HEAD_FIELDS",), "431"),
    Limit("bytes of a request's trailers", ("SPONGE_MAX_HEAD",), "431"),
    Limit("fields of a request's trailers", ("SPONGE_MAX_HEAD_FIELDS",), "431"),
    Limit("bytes of a chunked body beside its data", ("proxy.http.head_limits:EXCESS",), "400"),
    Limit("bytes of the head of the model server's answer", ("SPONGE_MAX_HEAD",), "502 `upstream-error`"),
    Limit("bytes of the body of an inference request", ("max-body",), "413"),
    Limit("rows of an inference request", ("max-rows",), "413"),
    Limit("dimensions of a tensor", ("codec.json.skeleton:MOST_DIMENSIONS",), "sent alone, never merged"),
    Limit("bytes of the answer to a merged call", ("SPONGE_MAX_ANSWER",), "502 `upstream-error`"),
    Limit("requests that wait in the queue", ("core.batching.batcher:BatchRules.max_queue",), "503 `queue-full`"),
    Limit(
        "bytes held for all clients together",
        ("SPONGE_MEMORY_BUDGET",),
        "503 `queue-full`, with Retry-After",
        "three quarters of what the container's memory is above 64 MiB; 512 MiB where it has no limit",
    ),
    Limit(
        "connections of the data ports",
        ("SPONGE_MAX_CONNECTIONS",),
        "the one that has been idle longest is closed, else the new one",
        "a quarter of that memory at 32 KiB each, and a third of the open files",
    ),
    Limit("open files for all else", ("proxy.http.bounds:RESERVED_FILES",), "kept free"),
    Limit(
        "TLS handshakes of one port at a time",
        ("tls_acceptor:MOST_HANDSHAKES",),
        "wait; the address with most gives way",
    ),
    Limit(
        "connections of one port that wait for their handshake",
        ("tls_acceptor:MOST_WAITING",),
        "the oldest of the address with most is closed",
    ),
    Limit("time of a TLS handshake", ("tls_acceptor:HANDSHAKE_S",), "closed"),
    Limit("time from a head's first byte to its end", ("SPONGE_HEAD_TIMEOUT",), "closed"),
    Limit("time in which a client takes nothing of its answer", ("SPONGE_DELIVERY_TIMEOUT",), "cut"),
    Limit("characters of an annotation", ("settings.serving:MOST_TEXT",), "refused at admission"),
    Limit("faults named in one refusal", ("controller.annotations:MOST_FAULTS",), "left out"),
    Limit("characters of input in an error text", ("errors:_MOST_SHOWN",), "left out"),
    Limit("bytes of a review's body", ("controller.admission.bodies:LARGEST_REVIEW",), "413"),
    Limit("values in a review", ("controller.admission.admission_review:MOST_VALUES",), "400"),
    Limit("time of a review's body", ("controller.admission.bodies:READ_S",), "408"),
    Limit(
        "learned models in the store",
        ("controller.profiles.store:MOST_PROFILES",),
        "the largest namespace gives one up",
    ),
)


def table() -> str:
    """All limits, as the pages show them."""
    lines = ["| limit | default | setting | beyond it |", "|---|---|---|---|"]
    for limit in LIMITS:
        default = ", ".join(shown(limit, value(place)) for place in limit.places)
        settings = ", ".join(f"`{place}`" for place in limit.places if ":" not in place)
        lines.append(f"| {limit.what} | {default} | {settings} | {limit.beyond} |")
    return "\n".join(lines) + "\n"


def shown(limit: Limit, number: Any) -> str:
    """A value in the unit that the limit begins with."""
    if number is None:
        return limit.unset
    if limit.what.startswith("time"):
        return format_duration(number)
    if limit.what.startswith("bytes"):
        return next(
            (f"{number >> bits} {unit}iB" for bits, unit in ((20, "M"), (10, "K")) if not number % (1 << bits)), ""
        )
    return str(number)


def value(place: str) -> Any:
    """The default of a setting, or a constant of the code."""
    if ":" not in place:
        return next(default for name, default in defaults() if name == place)
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(f"knative_sponge.{module}")
    for part in name.split("."):
        item = getattr(found, "__dataclass_fields__", {}).get(part)
        found = getattr(found, part) if item is None else item.default
    return found


def defaults() -> Iterator[tuple[str, Any]]:
    """Every setting as people write it, and what it is by default."""
    for item, name in zip(fields(ServingSettings), ServingSettings.names(), strict=True):
        yield name, item.default
    for kind, variables in (
        (ProxySettings, proxy_settings._OPTIONAL),
        (ControllerSettings, controller_settings._OPTIONAL),
    ):
        items = {item.name: item.default for item in fields(kind)}
        yield from ((name, items[field]) for name, (field, _) in variables.items() if field in items)


def split(page: str) -> tuple[str, str, str]:
    """What comes before the table, the table, and what comes after it."""
    before, found, rest = (DOCS / page).read_text().partition(MARKS[0])
    shown_table, end, after = rest.partition(MARKS[1])
    assert found
    assert end
    return before, shown_table, after


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.what)
def test_every_limit_is_in_the_code(limit: Limit) -> None:
    for place in limit.places:
        assert shown(limit, value(place))


@pytest.mark.parametrize("page", PAGES)
def test_the_page_shows_the_table(page: str) -> None:
    assert split(page)[1].strip() == table().strip()


def test_every_setting_that_is_a_limit_is_on_it() -> None:
    listed = {place for limit in LIMITS for place in limit.places}
    limits = {name for name, _ in defaults() if re.match(r"(?:SPONGE_)?(?:MAX|max)[_-]", name)}
    no_strangers = {"max-batch", "max-inflight", "max-cores", "max-memory", "max-network-share"}
    assert limits - no_strangers <= listed


def prose() -> str:
    """The page of settings behind the table, on one line."""
    return " ".join(split("settings.md")[2].split())


def test_the_page_says_the_bounds_of_the_side_ports() -> None:
    ports, webhook = PortLimits(), WEBHOOK_LIMITS
    assert f"heads of {ports.head >> 10} KiB and {ports.fields} fields (431)" in prose()
    assert f"bodies of {ports.body >> 10} KiB (413; the webhook {webhook.body >> 20} MiB)" in prose()
    assert f"{ports.connections} connections (the webhook {webhook.connections})" in prose()
    assert f"{ports.bodies >> 20} MiB of bodies at once (503; the webhook {webhook.bodies >> 20} MiB)" in prose()
    assert f"connection has {ports.silent_s:g} s, a head {ports.head_s:g} s, a body {ports.body_s:g} s (408;" in prose()
    assert f"a review {READ_S:g} s), an answer {ports.answer_s:g} s (the webhook's {webhook.answer_s:g} s;" in prose()
    assert f"a client that reads nothing {ports.unread_s:g} s" in prose()


@pytest.mark.parametrize(
    ("container", "words"), [(None, "{} MiB without a memory limit"), (128 * 2**20, "{} MiB in a container of 128 MiB")]
)
def test_the_page_says_how_large_a_body_the_budget_allows(container: int | None, words: str) -> None:
    budget, _ = shares(memory_budget(container), files=2**20)
    assert words.format(round(budget.largest / COPIES / 2**20)) in prose()


if __name__ == "__main__":
    for name in PAGES:
        before, _, after = split(name)
        (DOCS / name).write_text(before + MARKS[0] + "\n" + table() + "\n" + MARKS[1] + after)
