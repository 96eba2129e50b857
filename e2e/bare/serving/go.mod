module knative-sponge.dev/e2e/bare/serving

go 1.25.0

require knative.dev/serving v0.48.1
