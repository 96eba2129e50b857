module knative-sponge.dev/e2e/bare/pause

go 1.25.0
