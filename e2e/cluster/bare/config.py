"""What the node's components are told: flags and configuration files as values. Starts nothing, writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from e2e.cluster.bare.network import DNS_IP, NODE_IP, POD_RANGE, SERVICE_RANGE

SERVER: Final = f"https://{NODE_IP}:6443"
NODE: Final = "node1"
PAUSE: Final = "dev.local/pause:dev"
CGROUP: Final = "knative-sponge-e2e"
"""The group that all pods' groups are below, in every hierarchy: `up` never meets another kubelet's."""

_PLUGINS = "/usr/lib/cni"


def etcd(directory: Path) -> dict[str, Any]:
    """Flags of the store; it need not survive the machine."""
    clients, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return {
        "data-dir": directory / "etcd",
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
        "unsafe-no-fsync": "true",
    }


def api_server(pki: Path) -> dict[str, Any]:
    """Flags of the API server. Bound to the node's own address, which pods can reach."""
    return {
        "advertise-address": NODE_IP,
        "bind-address": NODE_IP,
        "secure-port": 6443,
        "etcd-servers": "http://127.0.0.1:2379",
        "service-cluster-ip-range": SERVICE_RANGE,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "kubelet-client-certificate": pki / "apiserver-kubelet-client.crt",
        "kubelet-client-key": pki / "apiserver-kubelet-client.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": pki / "sa.pub",
        "service-account-signing-key-file": pki / "sa.key",
        "requestheader-client-ca-file": pki / "front-proxy-ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": pki / "front-proxy-client.crt",
        "proxy-client-key-file": pki / "front-proxy-client.key",
    }


def controller_manager(pki: Path) -> dict[str, Any]:
    """Flags of the controllers, beyond those every leaderless component takes."""
    return {
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "false",
        "root-ca-file": pki / "ca.crt",
        "service-account-private-key-file": pki / "sa.key",
        "cluster-signing-cert-file": pki / "ca.crt",
        "cluster-signing-key-file": pki / "ca.key",
        "requestheader-client-ca-file": pki / "front-proxy-ca.crt",
        "client-ca-file": pki / "ca.crt",
    }


def kubelet(directory: Path, pki: Path, socket: Path) -> dict[str, Any]:
    """The kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "healthzBindAddress": "127.0.0.1",
        "containerRuntimeEndpoint": f"unix://{socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "cpuCFSQuota": True,
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": str(directory / "resolv.conf"),
        "podLogsDir": str(directory / "pod-logs"),
        # Nothing can be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "serializeImagePulls": False,
    }


def kube_proxy(directory: Path) -> dict[str, Any]:
    """kube-proxy's configuration; the machine's connection tracking is left alone."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": NODE,
        "clusterCIDR": POD_RANGE,
        "clientConnection": {"kubeconfig": str(directory / "proxy.kubeconfig")},
        "bindAddress": NODE_IP,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "0s"},
    }


def pod_network(directory: Path) -> dict[str, Any]:
    """Point to point: all of a pod's traffic is routed by the node, so service addresses work between pods too."""
    ranges = [[{"subnet": POD_RANGE}]]
    routes = [{"dst": "0.0.0.0/0"}]
    ipam = {"type": "host-local", "dataDir": str(directory / "cni" / "ipam"), "ranges": ranges, "routes": routes}
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{"type": "ptp", "ipMasq": False, "mtu": 1400, "ipam": ipam}],
    }


def containerd(directory: Path, socket: Path) -> str:
    """containerd's configuration, in TOML."""
    skipped = [f"io.containerd.snapshotter.v1.{name}" for name in ("btrfs", "zfs", "aufs", "devmapper")]
    skipped += ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{directory}/containerd/root"
state = "{directory}/containerd/state"
disabled_plugins = {json.dumps(skipped)}
[grpc]
  address = "{socket}"
{cri}]
  sandbox_image = "{PAUSE}"
  # Needed where this process may not lower scores (no CAP_SYS_RESOURCE).
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
{cri}.containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
{cri}.cni]
  bin_dir = "{_PLUGINS}"
  conf_dir = "{directory}/cni/net.d"
"""
