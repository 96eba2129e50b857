"""The network namespace that the node lives in, and this machine's only way into it. Addresses are of 198.18.0.0/15."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from e2e.cluster.command import Runner, run
from e2e.cluster.provider import ClusterError

NAMESPACE: Final = "sponge-e2e"
NODE_IP: Final = "198.18.255.1"
POD_RANGE: Final = "198.18.0.0/24"
SERVICE_RANGE: Final = "198.19.0.0/16"
DNS_IP: Final = "198.19.0.10"
INGRESS_IP: Final = "198.19.0.80"
API_IP: Final = "198.19.0.1"

_OUTSIDE, _INSIDE = "sponge-e2e0", "sponge-e2e1"
_OUTSIDE_IP, _INSIDE_IP = "198.18.254.1", "198.18.254.2"


def inside(*args: str | Path) -> list[str]:
    """The command line that runs `args` in the node's network namespace. (`ip netns exec` would hide the cgroups.)"""
    return ["nsenter", f"--net=/run/netns/{NAMESPACE}", "--", *(str(arg) for arg in args)]


def make(runner: Runner = run) -> None:
    """A namespace with the node's address and a wire to this machine; nothing leads from it to anywhere else."""
    runner(["ip", "netns", "add", NAMESPACE])
    runner(["ip", "link", "add", _OUTSIDE, "type", "veth", "peer", "name", _INSIDE, "netns", NAMESPACE])
    runner(["ip", "address", "add", f"{_OUTSIDE_IP}/30", "dev", _OUTSIDE])
    runner(["ip", "link", "set", _OUTSIDE, "up"])
    for destination in (f"{NODE_IP}/32", POD_RANGE, SERVICE_RANGE):
        runner(["ip", "route", "add", destination, "via", _INSIDE_IP])
    for words in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{_INSIDE_IP}/30", "dev", _INSIDE],
        ["ip", "link", "set", _INSIDE, "up"],
        # Service addresses are rewritten on their way out, so there must be a way out, which no packet survives.
        ["ip", "link", "add", "node", "type", "bridge"],
        ["ip", "address", "add", f"{NODE_IP}/32", "dev", "node"],
        ["ip", "link", "set", "node", "up"],
        ["ip", "route", "add", SERVICE_RANGE, "dev", "node", "src", NODE_IP],
        ["ip", "route", "add", "198.18.0.0/16", "dev", "node", "src", NODE_IP],
        ["sysctl", "-qw", "net.ipv4.ip_forward=1"],
    ):
        runner(inside(*words))


def remove(runner: Runner = run) -> None:
    """The namespace and, with it, the wire, the addresses and every rule of kube-proxy. Its processes must be gone."""
    for words in (["ip", "link", "delete", _OUTSIDE], ["ip", "netns", "delete", NAMESPACE]):
        try:
            runner(words)
        except ClusterError as error:
            if "No such file" not in str(error) and "Cannot find device" not in str(error):
                raise
