from __future__ import annotations

from collections.abc import Generator

import httpx
import pytest

from tests.unit.sandbox_providers.served import ADMIN_KEY, Back, Tripo, serving, tripo_at


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with serving(tmp_path_factory.mktemp("providers")) as url:
        yield url


@pytest.fixture
def back(served: str) -> Generator[Back]:
    """Puts the knobs back and clears the faults afterwards."""
    with httpx.Client(
        base_url=f"{served}/admin", headers={"X-Admin-Key": ADMIN_KEY}, trust_env=False, timeout=60
    ) as http:
        before = http.get("/knobs").json()
        yield Back(http)
        http.post("/knobs", json=before).raise_for_status()
        http.delete("/faults").raise_for_status()


@pytest.fixture
def tripo(served: str) -> Generator[Tripo]:
    with tripo_at(served) as client:
        yield client
