"""One running stack for all end-to-end tests of a test process; each test brings its own users."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.e2e.gateway import STOCK, Gateway, User, gateway_in_new_home


@pytest.fixture(scope="package")  # it ends before the suites of other directories begin
def gateway() -> Generator[Gateway]:
    with gateway_in_new_home(**STOCK) as running:
        yield running


@pytest.fixture
def drawn(gateway: Gateway) -> Generator[None]:
    """What is made is real work on the real input, for tests that look at it: a model takes ten seconds of a core."""
    gateway.knobs(drawing="real")
    yield
    gateway.knobs(drawing="stock")


@pytest.fixture
def user(gateway: Gateway) -> Generator[User]:
    yield gateway.new_user()
    gateway.clear_faults()
