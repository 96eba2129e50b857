"""Numbers that pods, kubelets and activators send and that cannot be: refused where they enter, and never computed with."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from knative_sponge.controller.profiles.collector import ModelCollector
from knative_sponge.controller.profiles.profile import from_text, image_profile
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.revisions.activators import held_requests
from knative_sponge.controller.sizing.memory_usage import working_sets
from knative_sponge.core.allocation.fleet import cheapest_fleet
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.profile import from_json
from knative_sponge.errors import ProfileError, WireError
from knative_sponge.wire.demand import DemandLine, decode_demand
from knative_sponge.wire.state import decode_state
from tests.controller.profile_kit import document

GIANT = "1" + "0" * 400
GIANTS = (GIANT, "1" + "0" * 4000, "-1", "1e400", "NaN", "Infinity", "-0.5e999", "9007199254740993")


@pytest.mark.parametrize("name", ["seq", "queued", "running", "met", "missed", "max_batch", "samples"])
@pytest.mark.parametrize("number", GIANTS)
def test_no_count_of_a_demand_is_more_than_a_float_can_hold(name: str, number: str) -> None:
    assert name in DemandLine.__struct_fields__
    with pytest.raises(WireError) as refused:
        decode_demand(f'{{"cores":1.0,"want":1.0,"{name}":{number}}}'.encode())
    assert len(str(refused.value)) <= 250


@pytest.mark.parametrize("name", ["cores", "want", "coming", "rate", "rows", "slack", "idle_s"])
@pytest.mark.parametrize("number", [GIANT, "1e400", "NaN", "1e308", "-1e308"])
def test_no_amount_of_a_demand_is_beyond_what_can_be(name: str, number: str) -> None:
    line = {"cores": "1.0", "want": "1.0"} | {name: number}
    with pytest.raises(WireError):
        decode_demand(("{" + ",".join(f'"{key}":{value}' for key, value in line.items()) + "}").encode())


@pytest.mark.parametrize("part", ['"queue":{"rows":%s}', '"rate":%s', '"running":[{"rows":%s,"requests":1,"for_s":0}]'])
def test_no_number_of_a_state_is_beyond_what_can_be(part: str) -> None:
    with pytest.raises(WireError):
        decode_state(('{"cores":{"now":1,"want":1},"model":{},' + part % GIANT + "}").encode())


def poisoned_models() -> dict[str, Any]:
    """A learned model with one number, in each of its places, that cannot be."""
    sound = document(30)
    giant = int(GIANT)
    region = sound["regions"][0]
    return {
        "samples": sound | {"samples": giant},
        "level": sound | {"level": giant},
        "version": sound | {"version": giant},
        "prior": sound | {"prior": dict.fromkeys(sound["prior"], giant)},
        "recent": sound | {"recent": [giant] * len(sound["recent"])},
        "visits": sound | {"regions": [region | {"visits": giant}]},
        "rows": sound | {"regions": [region | {"rows": giant}]},
        "evidence": sound | {"regions": [region | {"evidence": [giant] * len(region["evidence"])}]},
        "count": sound | {"spread": sound["spread"] | {"count": giant}},
        "square": sound | {"spread": sound["spread"] | {"square": giant}},
        "deep": sound | {"regions": json.loads("[" * 400 + "]" * 400)},
    }


@pytest.mark.parametrize("place", poisoned_models())
def test_a_model_with_a_number_that_cannot_be_is_no_model(place: str) -> None:
    model = poisoned_models()[place]
    with pytest.raises(ProfileError) as refused:
        from_json(model)
    assert len(str(refused.value)) <= 200
    with pytest.raises(ProfileError):
        image_profile(model, 1.0, 0.0)
    with pytest.raises(ProfileError):
        from_text(json.dumps({"model": model, "cores": 1.0, "seen": "2026-11-26T00:05:00Z"}))


class Learned:
    def __init__(self) -> None:
        self.keys: list[str] = []

    def learn(self, key: str, _model: Any, _cores: float | None) -> None:
        self.keys.append(key)


def test_pods_that_answer_the_collection_with_giants_end_nothing_and_others_are_heard() -> None:
    async def body() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            host = writer.get_extra_info("sockname")[0]
            model = json.dumps(answers[host])
            said = f'{{"cores":{{"now":1,"want":1}},"model":{model}}}'.encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))
            await writer.drain()
            writer.close()

        models = list(poisoned_models().values())
        hosts = [f"127.0.3.{number}" for number in range(1, len(models) + 2)]
        answers = dict(zip(hosts, [*models, document(30)], strict=True))
        servers = [await asyncio.start_server(serve, hosts[0], 0)]
        port = servers[0].sockets[0].getsockname()[1]
        servers += [await asyncio.start_server(serve, host, port) for host in hosts[1:]]
        learned, failures = Learned(), Failures()
        collector = ModelCollector(learned, port=port, failures=failures)
        await collector.collect({host: (host, "") for host in hosts})
        assert learned.keys == hosts[-1:]
        assert failures.of("models").holds(hosts[0])
        for server in servers:
            server.close()
            await server.wait_closed()

    asyncio.run(body())


def test_a_kubelets_figures_that_cannot_be_are_left_out() -> None:
    def line(pod: str, value: str) -> str:
        return f'container_memory_working_set_bytes{{namespace="n",pod="{pod}",container="c"}} {value} 1'

    text = "\n".join([line("giant", GIANT), line("huge", "1e300"), line("inf", "9e999"), line("sound", "5e6")])
    assert working_sets(text) == {("n", "sound", "c"): 5_000_000}


@pytest.mark.parametrize("value", [GIANT, "1e400", "NaN", "Inf", "1e12", "x"])
def test_an_activators_counts_that_cannot_be_make_it_unreadable(value: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        labels = 'k8s_namespace_name="n",kn_revision_name="r"'
        yield f"target_info{{}} 1\nkn_revision_request_queued{{{labels}}} {value}\n".encode()

    async def read() -> None:
        await held_requests(chunks())

    with pytest.raises(ValueError, match=r"count|float"):
        asyncio.run(read())


def test_a_fleet_of_batches_of_thousands_of_rows_costs_no_more_than_one_of_small_ones() -> None:
    """The leader asks for two of each hybrid revision every other second. It took 80 ms."""
    slow = (
        LatencyParams(1e-6, 1e-7, 0.0, 0.0),
        LatencyParams(1e-5, 1e-5, 1e-3, 1e-3),
        LatencyParams(0.14, 0.025, 0.005, 0.01),
    )
    begun = time.process_time()
    for params in slow:
        for rate in (10.0, 1e5, 1e9):
            for slack_s in (0.05, 60.0, 1e6):
                cheapest_fleet(params, rate, slack_s, max_rows=4096, min_cores=0.1, max_cores=16.0, caution=1.5)
    assert time.process_time() - begun < 27 * 0.003
