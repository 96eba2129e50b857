"""How a protocol's requests are merged and its answers split: pure functions on bytes, no I/O."""
