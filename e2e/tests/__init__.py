"""What must hold on a real cluster. Run by `make e2e`; each test has a namespace of its own."""
