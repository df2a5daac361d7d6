"""How much of the matrix runs: each point with one operation of a kind, and three times running where that makes a
difference (``part``), with all operations (``full``), or nothing (``off``)."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from app.embedded.valkey import EmbeddedValkey

from tests.chaos.crashes.matrix import Case, api_cases, cases
from tests.chaos.crashes.town import Town, running_town
from tests.servers import PostgresServer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``OPERATIONS`` of a module times the points they reach."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases_of(metafunc.module, metafunc.config), ids=str)
    if "api_case" in metafunc.fixturenames:
        metafunc.parametrize("api_case", api_cases(full=is_full(metafunc.config)), ids=str)


def cases_of(module: object, config: pytest.Config) -> list[Case]:
    return cases(vars(module)["OPERATIONS"], full=is_full(config))


def is_full(config: pytest.Config) -> bool:
    return bool(config.getoption("matrix") == "full")


@pytest.fixture(scope="module")
def town(request: pytest.FixtureRequest) -> Generator[Town]:
    """A gateway of the module's own, for all its cases at a time."""
    if request.config.getoption("matrix") == "off":
        pytest.skip("--matrix=off")
    postgres: PostgresServer = request.getfixturevalue("postgres18")
    valkey: EmbeddedValkey = request.getfixturevalue("valkey_server")
    with running_town(postgres, valkey) as found:
        found.start_all(cases_of(request.module, request.config))
        yield found
