"""Whether an address can be read, and how to name a place without its secrets.

Addresses hold passwords: what is said of a bad one never repeats a part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

DATABASE_SCHEMES = ("postgresql", "postgres")
BROKER_SCHEMES = ("redis", "rediss", "unix", "redis+socket")
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_ESCAPES = "write special characters of user and password as %40 (@), %23 (#), %2F (/), %3A (:), %3F (?)"


def database_fault(url: str) -> str | None:
    """What makes a Postgres URL unreadable; None for a good one."""
    parts = _split(url, DATABASE_SCHEMES, "postgresql://user:password@host:5432/database")
    if isinstance(parts, str):
        return parts
    _, _, hosts = parts.netloc.rpartition("@")
    if fault := _each_port(hosts.split(",")):
        return fault
    try:
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        return "what follows the ? is not name=value&name=value"
    mode = query.get("sslmode", ["prefer"])[-1]
    return None if mode in _SSL_MODES else f"sslmode is one of {', '.join(sorted(_SSL_MODES))}"


def broker_fault(url: str) -> str | None:
    """What makes a Redis URL unreadable; None for a good one."""
    parts = _split(url, BROKER_SCHEMES, "redis://host:6379/0 (rediss:// with TLS)")
    if isinstance(parts, str):
        return parts
    if parts.scheme in ("unix", "redis+socket"):
        query = parse_qs(parts.query)
        number = (query.get("virtual_host") or query.get("db") or ["0"])[0]
        return None if number.isdecimal() else "the number of the database is not a number"
    if fault := _each_port([parts.netloc.rpartition("@")[2]]):
        return fault
    number = parts.path.strip("/")
    return None if not number or number.isdecimal() else "what follows the host is not the number of a database"


def web_fault(url: str) -> str | None:
    """What makes the address of a service unreadable; None for a good one."""
    parts = _split(url, ("https", "http"), "https://host")
    if isinstance(parts, str):
        return parts
    return None if parts.hostname else "it names no host"


def place(url: str) -> str:
    """Host and port, or socket, of an address that can be read; never user, password or query."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", []))
    return unquote(hosts or parts.path) or "the default place"


def _split(url: str, schemes: tuple[str, ...], example: str) -> SplitResult | str:
    """The parts of a URL, or what is wrong with it."""
    if not url.strip():
        return f"it is empty: it looks like {example}"
    if url != url.strip() or any(character.isspace() for character in url):
        return "there is white space in it"
    if "://" not in url or url.partition("://")[0].lower() not in schemes:
        return f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}: it looks like {example}"
    if "[YOUR-PASSWORD]" in url:
        return "[YOUR-PASSWORD] is still in it: put the password there"
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"it can not be read: {_ESCAPES}"
    if parts.fragment or "@" in parts.path or "@" in parts.query or parts.netloc.count("@") > 1:
        return f"it can not be read: {_ESCAPES}"
    return parts


def _each_port(hosts: list[str]) -> str | None:
    for host in hosts:
        _, _, port = host.rpartition("]")[2].partition(":")
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            return f"the port is not a number from 1 to 65535; {_ESCAPES}"
    return None


def refuse(fault: Callable[[str], str | None], url: str) -> None:
    """Raises ValueError with what makes the address unreadable."""
    found = fault(url)
    if found is not None:
        raise ValueError(found)
