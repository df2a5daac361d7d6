"""Messages that say a lane has work: few for a burst, none of them waited for, and the last one never left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import redis
from app.domain.broker_url import redis_py_url
from app.embedded.valkey import EmbeddedValkey
from app.tasks.bells import CeleryBells, celery_bells
from prometheus_client import REGISTRY
from pydantic import SecretStr

from tests.integration.factories import settings_for
from tests.servers import free_port


@pytest.fixture
async def bells(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncGenerator[CeleryBells]:
    found = celery_bells(settings_for("postgresql://nobody@127.0.0.1:1/none", tmp_path, redis_url=valkey.url()))
    yield found
    await found.aclose()


def messages(valkey: EmbeddedValkey) -> dict[str, int]:
    with redis.Redis.from_url(redis_py_url(valkey.url())) as client:
        return {lane: int(client.llen(lane)) for lane in ("priority", "normal")}  # pyright: ignore[reportArgumentType]


async def test_a_burst_is_one_message_for_each_lane(bells: CeleryBells, valkey: EmbeddedValkey) -> None:
    for _ in range(200):
        bells.ring(["normal"])
        bells.ring(["priority"])
    assert messages(valkey) == {"priority": 0, "normal": 0}  # whoever rings has not waited for any
    await bells.aclose()
    assert messages(valkey) == {"priority": 1, "normal": 1}


async def test_what_comes_while_one_is_sent_is_told_by_one_more(bells: CeleryBells, valkey: EmbeddedValkey) -> None:
    bells.ring(["normal"])
    await asyncio.sleep(0)  # it is being sent
    for _ in range(200):
        bells.ring(["normal"])
    await bells.aclose()
    assert messages(valkey) == {"priority": 0, "normal": 2}


async def test_a_broker_that_is_away_costs_nobody_anything(tmp_path: Path) -> None:
    away = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
    bells = celery_bells(settings_for("postgresql://nobody@127.0.0.1:1/none", tmp_path, redis_url=away))

    def failed() -> float:
        return REGISTRY.get_sample_value("makeit3d_bells_total", {"lane": "normal", "outcome": "failed"}) or 0.0

    before = failed()
    for _ in range(200):
        bells.ring(["normal"])
    await bells.aclose()
    assert failed() == before + 1
