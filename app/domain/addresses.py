"""Which network addresses lie outside of every network of ours."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_TRANSLATED = IPv6Network("64:ff9b::/96")  # leads to the IPv4 address in its last 32 bits
_LAST_32_BITS = 0xFFFFFFFF
# not public, though not every Python knows it; some clouds answer with secrets in the first
_ASSIGNMENTS = IPv4Network("192.0.0.0/24")
_FORMER = (IPv6Network("::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a text spells, None for every name."""
    try:
        return ip_address(text.partition("%")[0])  # less the zone
    except ValueError:
        return None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address, and whatever IPv4 address it stands for, can only be in the internet."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and address not in _ASSIGNMENTS
    inner = _inner(address)
    if inner:
        return all(is_public(found) for found in inner)
    return address.is_global and not address.is_multicast and not any(address in network for network in _FORMER)


def _inner(address: IPv6Address) -> list[IPv4Address]:
    translated = IPv4Address(int(address) & _LAST_32_BITS) if address in _TRANSLATED else None
    found = [address.ipv4_mapped, address.sixtofour, translated, *(address.teredo or ())]
    return [inner for inner in found if inner is not None]
