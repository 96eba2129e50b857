"""The protocol of a proxy's admin port (docs/design.md): each message as a value with its encoder and decoder, the HTTP around
them, and one client. Nothing is decided here, nothing is logged, and nothing waits without a bound.
May import the standard library, msgspec, `core` and `errors`; the proxy, the controller, `local` and `cli` import it."""
