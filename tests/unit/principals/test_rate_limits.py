"""Against a real Valkey."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from app.domain.broker_url import redis_py_url
from app.embedded.valkey import EmbeddedValkey
from app.errors import AppError, ErrorCode
from app.services.rate_limits import UNCOUNTED, RateLimits

from tests.servers import free_port, running_valkey


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["as Celery spells it", "as redis-py spells it"])
async def limits(valkey: EmbeddedValkey, request: pytest.FixtureRequest) -> AsyncGenerator[RateLimits]:
    url = valkey.url() if request.param == "as Celery spells it" else redis_py_url(valkey.url())
    limits = RateLimits(url, {"openai": 3, "tripo": 1, "free": None})
    yield limits
    await limits.aclose()


async def count(limits: RateLimits, provider: str, user_id: UUID, tries: int) -> list[AppError]:
    """The refusals among so many tries at once."""
    answers = await asyncio.gather(*(limits.hit(provider, user_id) for _ in range(tries)), return_exceptions=True)
    return [answer for answer in answers if isinstance(answer, AppError)]


def uncounted() -> float:
    return UNCOUNTED._value.get()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


async def test_a_user_gets_so_many_per_provider(limits: RateLimits) -> None:
    before, user, other = uncounted(), uuid4(), uuid4()
    assert len(await count(limits, "openai", user, 10)) == 7
    assert len(await count(limits, "tripo", user, 5)) == 4
    assert len(await count(limits, "openai", other, 3)) == 0
    assert len(await count(limits, "free", user, 50)) == 0
    assert len(await count(limits, "unknown", user, 50)) == 0
    assert uncounted() == before


async def test_the_refusal_says_when_to_come_back(limits: RateLimits) -> None:
    user = uuid4()
    await limits.hit("tripo", user)
    with pytest.raises(AppError) as caught:
        await limits.hit("tripo", user)
    assert caught.value.error is ErrorCode.RATE_LIMITED
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 60


async def test_processes_count_together(valkey: EmbeddedValkey) -> None:
    user = uuid4()
    first, second = (RateLimits(valkey.url(), {"tripo": 2}) for _ in range(2))
    await first.hit("tripo", user)
    await second.hit("tripo", user)
    assert len(await count(first, "tripo", user, 1)) == 1
    assert len(await count(second, "tripo", user, 1)) == 1
    await first.aclose()
    await second.aclose()


async def test_without_redis_requests_go_through_and_are_counted() -> None:
    clock, before, user = Clock(), uncounted(), uuid4()
    limits = RateLimits(f"redis://127.0.0.1:{free_port()}/0", {"tripo": 1}, clock=clock)
    assert await count(limits, "tripo", user, 5) == []
    assert uncounted() == before + 5
    await limits.aclose()


async def test_a_silent_redis_is_asked_only_now_and_then() -> None:
    clock, user = Clock(), uuid4()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts in the kernel, never answers
        limits = RateLimits(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", {"tripo": 1}, clock=clock)
        before = uncounted()
        await limits.hit("tripo", user)
        silent.setblocking(False)
        silent.accept()[0].close()
        for _ in range(100):
            await limits.hit("tripo", user)
        assert uncounted() == before + 101
        with pytest.raises(BlockingIOError):
            silent.accept()  # nobody called again
        await limits.aclose()


async def test_counting_goes_on_when_redis_is_back() -> None:
    clock, user = Clock(), uuid4()
    with running_valkey() as server:
        limits = RateLimits(server.url(), {"tripo": 1}, clock=clock)
        await limits.hit("tripo", user)
        server.kill()
        assert await count(limits, "tripo", user, 2) == []
        server.start()
        clock.now += 10
        await limits.hit("tripo", user)
        assert len(await count(limits, "tripo", user, 1)) == 1
        await limits.aclose()
