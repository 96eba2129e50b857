"""Tests of what the end-to-end tests stand on. None makes a cluster; python -m e2e does that."""
