"""Clusters to test on: made, filled with images, taken down. Knows nothing of the tests."""
