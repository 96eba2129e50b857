"""Free ports, and waiting for one to accept."""

from __future__ import annotations

import asyncio
import dataclasses
import socket

import pytest

from knative_sponge.errors import SettingError
from knative_sponge.local.ports import Ports, wait_accepting


def test_all_ports_are_distinct_and_free() -> None:
    ports = dataclasses.astuple(Ports.choose("127.0.0.1"))
    assert len(set(ports)) == 6
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_named_ports_are_kept() -> None:
    free = Ports.choose("127.0.0.1")
    ports = Ports.choose("127.0.0.1", public=free.public, server=free.server)
    assert (ports.public, ports.server) == (free.public, free.server)


def test_all_ports_that_can_be_named_are_kept() -> None:
    free = Ports.choose("127.0.0.1")
    ports = Ports.choose("127.0.0.1", admin=free.admin, metrics=free.metrics)
    assert (ports.admin, ports.metrics) == (free.admin, free.metrics)


@pytest.mark.parametrize("name", ["port", "server-port", "admin-port", "metrics-port"])
def test_a_named_port_in_use_is_a_setting_error(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        named = {"port": "public"}.get(name, name.removesuffix("-port"))
        with pytest.raises(SettingError, match=f"^{name}: {port}"):
            Ports.choose("127.0.0.1", **{named: port})


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "2001:db8::1", "a" * 300])
def test_an_address_that_is_not_this_machines_is_blamed_itself(host: str) -> None:
    with pytest.raises(SettingError, match=r"^host: .* expected an address of this machine"):
        Ports.choose(host, public=Ports.choose("127.0.0.1").public)


def test_the_model_servers_port_is_looked_for_where_it_listens_whatever_the_proxys_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=f"^server-port: {port}"):
            Ports.choose("127.0.0.2", server=port)


def test_one_port_for_both_is_a_setting_error() -> None:
    port = Ports.choose("127.0.0.1").public
    with pytest.raises(SettingError, match="server-port"):
        Ports.choose("127.0.0.1", public=port, server=port)


def test_a_port_that_is_held_is_nobodys_by_chance_and_its_owners_on_demand() -> None:
    ports = Ports.choose("127.0.0.1")
    with ports.held("127.0.0.1"):
        with socket.socket() as client, pytest.raises(OSError, match="in use"):
            client.bind(("127.0.0.1", ports.public))  # as a connection takes its near end: without SO_REUSEADDR
        with socket.create_server(("127.0.0.1", ports.public)):
            pass
    with socket.socket() as client:
        client.bind(("127.0.0.1", ports.public))


def test_waiting_ends_when_the_port_accepts_and_not_before() -> None:
    async def main() -> None:
        port = Ports.choose("127.0.0.1").public
        waiting = asyncio.create_task(wait_accepting("127.0.0.1", port))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.1)
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
            await asyncio.wait_for(waiting, 20)

    asyncio.run(main())
