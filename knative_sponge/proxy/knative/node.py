"""Who speaks for the pod's node: the kubelet calls from there, and nobody else in the network does. Judges by address alone.

Which address the kubelet calls from is the network's choice. It is the pod's default gateway with bridge and ptp networks
(kindnet, flannel, GKE, Antrea, OpenShift SDN) and with Cilium, whose router has an address on each node; it is the node's own
where the gateway is a link-local one that nobody has (Calico, AWS, Azure, Cilium with endpoint routes). OVN-Kubernetes and
Kube-OVN take an address of the node's that no pod can know: there `SPONGE_HOST_IPS` names it, or a network of such addresses.
Behind a mesh's sidecar that takes a port over, everybody calls from loopback.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

from knative_sponge.asgi import Scope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_ROUTES: Final = Path("/proc/net")
_MOST_BYTES: Final = 2**20
"""Read of a table of routes. A pod has a few; a process in the host's network may have many."""


class Node:
    """The addresses that speak for the node, and the pod's own.

    told: addresses and networks that the settings name. routes: where the kernel shows the tables of routes.
    """

    def __init__(self, told: Sequence[Network] = (), routes: Path = _ROUTES) -> None:
        self._networks = [*told, *(ip_network(gateway) for gateway in gateways(routes))]

    def speaks(self, scope: Scope) -> bool:
        """Whether a request comes from the node or from the pod itself. A peer that has no address (a pipe) is the pod."""
        client = scope.get("client")
        if not client:
            return True
        peer = _address(client[0])
        if peer is None:
            return False
        server = scope.get("server")
        if peer.is_loopback or (server and peer == _address(server[0])):
            return True
        return any(peer in network for network in self._networks)


def gateways(routes: Path = _ROUTES) -> Iterator[Address]:
    """The gateways of the default routes in this network namespace; none where the system does not show them."""
    for line in _lines(routes / "route")[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000" and fields[2] != "00000000":
            yield IPv4Address(socket.inet_ntoa(struct.pack("=I", int(fields[2], 16))))
    for line in _lines(routes / "ipv6_route"):
        fields = line.split()
        if len(fields) > 4 and fields[0] == "0" * 32 and fields[1] == "00" and fields[4] != "0" * 32:
            yield IPv6Address(int(fields[4], 16))


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="ascii") as table:
            return table.read(_MOST_BYTES).splitlines()
    except OSError:
        return []


def _address(text: str) -> Address | None:
    """An address as a socket shows it; an IPv4 one that a dual-stack listener shows as IPv6 is IPv4 again."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
