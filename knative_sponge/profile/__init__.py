"""Measuring latency over (batch, cores) and making load: traces and arrival processes."""
