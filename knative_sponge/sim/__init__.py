"""The simulator: virtual time around the same core that serves production. No sockets, no sleeping."""
