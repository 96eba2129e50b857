"""knative-sponge: deadline-aware model serving for Knative."""

__version__ = "0.1.0"
