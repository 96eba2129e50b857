"""A cluster in Docker, by kind, with Knative from its release files. For machines with Docker and a way to the registries."""
