"""End-to-end tests on a real Kubernetes cluster with Knative. Never imported by the product."""
