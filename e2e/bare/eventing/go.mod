module knative-sponge.dev/e2e/bare/eventing

go 1.25.0

require knative.dev/eventing v0.48.1
