"""Programs that run inside the cluster for the tests to talk to. Standard library only, and nothing of the product."""
