"""Which addresses speak for the node: gateways of the pod's routes, what the settings name, and the pod itself."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from knative_sponge.proxy.knative.node import Node, gateways

ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000F40A\t0200F40A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
NONE = "0" * 32
ROUTE6 = f"""\
fd000000000000000000000000000000 40 {NONE} 00 {NONE} 00000100 00000001 00000000 00000001     eth0
fd010000000000000000000000000000 40 {NONE} 00 fd000000000000000000000000000002 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 60 {NONE} 00 fd000000000000000000000000000003 00000400 00000001 00000000 00000003     eth0
{NONE} 00 {NONE} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
{NONE} 00 {NONE} 00 {NONE} ffffffff 00000001 00000000 00200200       lo
"""


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "ipv6_route").write_text(ROUTE6)
    return tmp_path


def test_the_gateways_are_those_of_the_default_routes(routes: Path) -> None:
    assert [str(one) for one in gateways(routes)] == ["10.244.0.1", "fd00::1"]


def test_a_system_that_shows_no_routes_has_no_gateways(tmp_path: Path) -> None:
    assert list(gateways(tmp_path)) == []


@pytest.mark.parametrize(
    ("client", "server", "speaks"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", True, id="loopback"),
        pytest.param(
            "::ffff:127.0.0.6", "::ffff:10.244.0.9", True, id="loopback that a dual-stack listener shows as IPv6"
        ),
        pytest.param("::1", "::1", True, id="loopback of IPv6"),
        pytest.param("10.244.0.9", "10.244.0.9", True, id="the pod by its own address"),
        pytest.param("::ffff:10.244.0.9", "10.244.0.9", True, id="the pod by its own address, shown as IPv6"),
        pytest.param("10.244.0.1", "10.244.0.9", True, id="gateway"),
        pytest.param("::ffff:10.244.0.1", "::ffff:10.244.0.9", True, id="gateway, shown as IPv6"),
        pytest.param("fd00::1", "fd00::9", True, id="gateway of IPv6"),
        pytest.param("192.168.0.7", "10.244.0.9", True, id="node"),
        pytest.param("100.64.3.3", "10.244.0.9", True, id="network that is named"),
        pytest.param("fe80::1%eth0", "fd00::9", False, id="link-local neighbour"),
        pytest.param("10.244.0.2", "10.244.0.9", False, id="another pod"),
        pytest.param("192.168.0.8", "10.244.0.9", False, id="another node"),
        pytest.param("fd00::2", "fd00::9", False, id="another pod of IPv6"),
        pytest.param("unix", "10.244.0.9", False, id="no address"),
    ],
)
def test_who_speaks_for_the_node(routes: Path, client: str, server: str, speaks: bool) -> None:
    node = Node([ip_network("192.168.0.7"), ip_network("100.64.0.0/16")], routes)
    assert node.speaks({"client": (client, 1), "server": (server, 8022)}) is speaks


def test_a_peer_without_an_address_is_in_the_pod(routes: Path) -> None:
    assert Node((), routes).speaks({"client": None, "server": None})
