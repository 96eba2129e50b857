"""How many cores one pod needs, by its queue and arrivals, and how the proxy sees its own size.

The batcher is only read here, and no resize is carried out. It may import all other rooms of the core; none imports it.
"""
