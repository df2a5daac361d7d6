"""How much of the matrix runs: nothing, a part that meets every point (``part``), or all of it (``full``)."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from app.embedded.valkey import EmbeddedValkey

from tests.chaos.crashes.matrix import Case, cases
from tests.chaos.crashes.town import Town, running_town
from tests.servers import PostgresServer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``OPERATIONS`` of a module times the points they reach."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases_of(metafunc.module, metafunc.config), ids=str)


def cases_of(module: object, config: pytest.Config) -> list[Case]:
    return cases(vars(module)["OPERATIONS"], full=config.getoption("matrix") == "full")


@pytest.fixture(scope="module")
def town(request: pytest.FixtureRequest) -> Generator[Town]:
    """A gateway of the module's own; all cases begin at once. Hundreds of processes die: too long for every run."""
    if request.config.getoption("matrix") == "off":
        pytest.skip("the crash matrix runs with --matrix=part or --matrix=full")
    postgres: PostgresServer = request.getfixturevalue("postgres18")
    valkey: EmbeddedValkey = request.getfixturevalue("valkey_server")
    with running_town(postgres, valkey) as found:
        if hasattr(request.module, "OPERATIONS"):
            found.start_all(cases_of(request.module, request.config))
        yield found
