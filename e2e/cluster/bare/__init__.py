"""A real single-node cluster without Docker: Kubernetes and Knative built from Go modules, run as root in a network
namespace of their own. Nothing outside that namespace, the cache, the run directory and one cgroup is touched."""
