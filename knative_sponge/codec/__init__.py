"""How a protocol's requests are merged into one call, and how its answer is split: pure functions on bytes.

No I/O, no clock and no scheduling happen here, and no number of a tensor is decoded.
May import msgspec, `errors` and the core's reading of timestamps.
"""
