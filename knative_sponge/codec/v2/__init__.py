"""Open Inference Protocol V2: inference requests merged tensor by tensor, answers split by rows.

No other protocol is known here, and no element of a tensor is decoded.
May import `codec.json`, `codec.headers` and `codec.base`.
"""
