"""The simulator: virtual time around the same core that serves production.

No sockets, no sleeping, no clock, and no decision of its own. It may import `core` and `errors` only.
"""
