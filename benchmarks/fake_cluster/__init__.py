"""A cluster without machines for `benchmarks.scale`: an API server, kubelets and demand streams in one cheap process."""
