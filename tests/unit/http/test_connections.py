"""Connections are counted by address, and an IPv6 network that one client has is one address."""

from __future__ import annotations

from app.server import ConnectionsByAddress


def test_an_address_has_so_many_and_gets_back_what_it_leaves() -> None:
    connections = ConnectionsByAddress(2)
    assert [connections.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert connections.enter("192.0.2.2")
    connections.leave("192.0.2.1")
    assert [connections.enter("192.0.2.1") for _ in range(2)] == [True, False]


def test_the_addresses_of_one_network_are_one() -> None:
    connections = ConnectionsByAddress(1)
    assert connections.enter("2001:db8:0:1::1")
    assert not connections.enter("2001:db8:0:1:ffff::2")
    assert connections.enter("2001:db8:0:2::1")
    assert connections.enter("fe80::1%eth0")
    assert not connections.enter("fe80::2%eth0")


def test_an_address_in_either_spelling_is_one() -> None:
    connections = ConnectionsByAddress(1)
    assert connections.enter("::ffff:192.0.2.1")
    assert not connections.enter("192.0.2.1")


def test_zero_is_no_limit() -> None:
    connections = ConnectionsByAddress(0)
    assert all(connections.enter("192.0.2.1") for _ in range(1000))
