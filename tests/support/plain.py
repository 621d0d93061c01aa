"""HTTP requests on this machine, each over a connection of its own.

``httpx.get`` makes a context for TLS at each call, which takes 25 ms of processor time:
twenty times as much as all the rest of a short request. Here there is one.
"""

import ssl
from functools import partial

import httpx

_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

get = partial(httpx.get, verify=_TLS, trust_env=False)
post = partial(httpx.post, verify=_TLS, trust_env=False)
