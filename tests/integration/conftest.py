"""A migrated database of its own for each test, opened as the gateway opens it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from app.ai_clients.registry import pools
from app.config import Settings
from app.db import pools as pool_rows
from app.db.pool import Database

from tests.integration.factories import settings_for


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return settings_for(database, tmp_path)


@pytest.fixture
async def db(settings: Settings) -> AsyncGenerator[Database]:
    opened = await Database.open(settings, application_name="makeit3d test")
    await pool_rows.ensure(opened, {name: (p.provider, p.slots) for name, p in pools(settings).items()})
    yield opened
    await opened.close()
