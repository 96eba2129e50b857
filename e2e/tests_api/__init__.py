"""The controller against a real API server on a bad way: `python -m pytest e2e/tests_api`, or as part of `python -m e2e`."""
