"""The broker's address in the two spellings that exist for unix sockets. One setting serves both clients."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit


def celery_url(url: str) -> str:
    """``redis+socket:///path?virtual_host=N`` for sockets; other addresses unchanged."""
    path, database = _socket(url)
    return url if path is None else f"redis+socket://{path}?virtual_host={database}"


def redis_py_url(url: str) -> str:
    """``unix:///path?db=N`` for sockets; other addresses unchanged."""
    path, database = _socket(url)
    return url if path is None else f"unix://{path}?db={database}"


def _socket(url: str) -> tuple[str | None, int]:
    parts = urlsplit(url)
    if parts.scheme not in ("unix", "redis+socket"):
        return None, 0
    query = parse_qs(parts.query)
    number = (query.get("virtual_host") or query.get("db") or ["0"])[0]
    return parts.path, int(number)
