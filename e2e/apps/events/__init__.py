"""A sink of CloudEvents that tells what it got, and fails on purpose when a test wants retries."""
