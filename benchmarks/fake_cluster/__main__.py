"""The process of the fake cluster: `python -m benchmarks.fake_cluster`. It prints its two ports and reads commands, one a line.

share 0.05      from now on 5 % of the pods change their want each second
take            prints what the cluster saw since the last `take`, as one line of JSON
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from contextlib import suppress
from dataclasses import fields

import msgspec
import uvloop

from benchmarks.fake_cluster.api import Api
from benchmarks.fake_cluster.http import Connection
from benchmarks.fake_cluster.objects import (
    NAMESPACE,
    PodTemplate,
    Shape,
    foreign_pod,
    node,
    revision_objects,
)
from benchmarks.fake_cluster.proxies import LEAST, MOST, Proxies, Seen
from knative_sponge.controller.kube.resource import (
    AUTOSCALER_CONFIG,
    DEPLOYMENTS,
    NODES,
    POD_AUTOSCALERS,
    PODS,
    REPLICA_SETS,
    REVISIONS,
    SERVERLESS_SERVICES,
)

_LEFT_SHARE = 0.6
"""Share of a node's cores that foreign pods and sidecars leave at least, even on the smallest nodes."""


def fill(api: Api, proxies: Proxies, shape: Shape, rng: random.Random) -> None:
    """Make all objects, and a proxy for each pod. At the start the sizes fit their nodes."""
    for number in range(shape.nodes):
        api.put(NODES, node(number, shape))
    for number in range(shape.foreign):
        api.put(PODS, foreign_pod(number, number % shape.nodes))
    steps = round(MOST / LEAST).bit_length()
    wants = [LEAST * 2 ** rng.randrange(steps) for _ in range(shape.pods)]
    homes = [(number * 7 + number // shape.nodes) % shape.nodes for number in range(shape.pods)]
    asked = [sum(want for want, home in zip(wants, homes, strict=True) if home == one) for one in range(shape.nodes)]
    template = PodTemplate()
    counts = [0] * shape.revisions
    for number, (want, home) in enumerate(zip(wants, homes, strict=True)):
        revision = number % shape.revisions
        counts[revision] += 1
        cores = round(want * min(1.0, _LEFT_SHARE * shape.cores_of(home) / asked[home]), 3)
        pod = template.make(number, revision, home, cores, shape)
        api.put(PODS, pod)
        roomy = shape.cores_of(home) == shape.cores
        proxies.add(number, (NAMESPACE, pod["metadata"]["name"]), cores, want, roomy=roomy)
    kinds = {each.plural: each for each in (POD_AUTOSCALERS, REVISIONS, SERVERLESS_SERVICES, DEPLOYMENTS, REPLICA_SETS)}
    for number in range(shape.revisions):
        for plural, item in revision_objects(number, counts[number], shape).items():
            api.put(kinds[plural], item)
    config = {"metadata": {"name": "config-autoscaler", "namespace": "knative-serving"}, "data": {}}
    api.put(AUTOSCALER_CONFIG, config)


async def serve(shape: Shape) -> None:
    """Serve until standard input ends."""
    rng = random.Random(1)
    proxies = Proxies(rng)
    api = Api(proxies.resized)
    fill(api, proxies, shape, rng)
    loop = asyncio.get_running_loop()
    api_server = await loop.create_server(lambda: Connection(api.handle), "127.0.0.1", 0, backlog=4096)
    admin_server = await loop.create_server(lambda: Connection(proxies.handle), "0.0.0.0", 0, backlog=4096)
    ports = [each.sockets[0].getsockname()[1] for each in (api_server, admin_server)]
    print(*ports, flush=True)
    tasks = [asyncio.create_task(part) for part in (api.bookmarks(), proxies.change())]
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        word, _, rest = line.strip().partition(" ")
        if word == "share":
            proxies.share = float(rest)
        elif word == "take":
            seen = {"seen": proxies.seen, "writes": api.writes, "streams": proxies.streams}
            print(msgspec.json.encode(seen).decode(), flush=True)
            proxies.seen = Seen()
            api.writes.clear()
    for task in tasks:
        task.cancel()


def main() -> None:
    """Read the shape and serve it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for each in fields(Shape):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    with suppress(KeyboardInterrupt):
        uvloop.run(serve(Shape(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
