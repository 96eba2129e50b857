"""The proxies of all managed pods: what they ask for comes in, their sizes go out.

Nothing is decided here, and nothing of the protocol is spelled here: that is `wire`.
May import `wire`, `core`, `errors` and `controller.kube`; only `controller.sizing` imports it.
"""
