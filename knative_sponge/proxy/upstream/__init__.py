"""The model server's side: connections, their reuse, requests and answers passed on as they come.

No body is understood here, and no request is sent twice that may have had an effect.
May import `proxy.http`.
"""
