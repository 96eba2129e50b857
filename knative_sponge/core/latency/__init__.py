"""How long a batch takes on so many cores: the curve, what is learned of it, and the throughput that follows from it.

No decision about requests, queues or sizes is made here. It may import only `errors` and `core`'s top modules (`quantity`,
`backoff`).
"""
