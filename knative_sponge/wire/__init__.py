"""The protocol of a proxy's admin port (docs/design.md §5.2): its messages, the HTTP around them, and one client.

Nothing is decided here, nothing is logged, and nothing waits without a bound.
May import the standard library, msgspec, `core` and `errors`.
"""
