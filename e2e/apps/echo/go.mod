module knative-sponge.dev/e2e/apps/echo

go 1.25.0
