"""One HTTP client for single calls to servers of the test's own: no certificates to load, and patience under load."""

from __future__ import annotations

import ssl
from typing import Final

import httpx

loopback: Final = httpx.Client(
    trust_env=False,
    verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    timeout=60,
    limits=httpx.Limits(max_keepalive_connections=0),  # servers come and go, and ports are used again
)
