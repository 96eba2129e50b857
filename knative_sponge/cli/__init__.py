"""The `sponge` command: arguments in, programs started, results printed.

No decision of its own is made here: sizes, batches and judgements come from `core` and the shells. It may import everything,
and nothing imports it. A verb's libraries are imported with that verb only.
"""
