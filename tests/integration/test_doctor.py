"""A healthy installation has no findings; the rest is in the plants."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from app.embedded.valkey import EmbeddedValkey

from tests.integration.doctor_world import World, examined, healthy_world
from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def world(
    postgres18: PostgresServer, valkey_server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Generator[World]:
    with healthy_world(postgres18, valkey_server, tmp_path_factory.mktemp("doctor")) as healthy:
        yield healthy


def test_a_healthy_installation_has_no_findings(world: World) -> None:
    assert examined(world.settings) == []
