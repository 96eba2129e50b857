"""CloudEvents: requests that are events, alone or in batched mode, and events around another codec's requests.

No reply event is made here: that takes a clock.
May import `codec.json`, `codec.headers`, `codec.base` and the core's reading of timestamps.
"""
