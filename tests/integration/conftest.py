"""A migrated database of its own for each test, opened as the gateway opens it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from app.ai_clients.registry import build_registry
from app.config import Settings
from app.db import pools as pool_rows
from app.db.pool import Database

from tests.integration.factories import settings_for
from tests.integration.fuzzing import Fuzz
from tests.kernel import ASSET_KINDS


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return settings_for(database, tmp_path)


@pytest.fixture
async def db(settings: Settings) -> AsyncGenerator[Database]:
    opened = await Database.open(settings, ASSET_KINDS, application_name="makeit3d test")
    await pool_rows.ensure(
        opened, {name: (p.provider, p.slots) for name, p in build_registry().pools(settings).items()}
    )
    yield opened
    await opened.close()


@pytest.fixture
def fuzz(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Fuzz:
    options = request.config.option
    return Fuzz(database, tmp_path, examples=options.fuzz_examples, seed=options.fuzz_seed)
