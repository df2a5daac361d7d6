"""Requests per user and provider and minute, counted in Redis over all API processes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from uuid import UUID

import redis.asyncio as redis
import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from prometheus_client import Counter

from app.domain.broker_url import redis_py_url
from app.errors import AppError, ErrorCode

log = structlog.get_logger(__name__)

UNCOUNTED = Counter("makeit3d_rate_limit_uncounted_total", "Requests let through because Redis did not answer")


class RateLimits:
    def __init__(self, redis_url: str, per_minute: Mapping[str, int | None]) -> None:
        """``per_minute`` maps a provider to its limit per user; None means no limit."""
        url = redis_py_url(redis_url)
        self._pool = redis.ConnectionPool.from_url(url, socket_connect_timeout=1, socket_timeout=1)
        storage = RedisStorage(f"async+{_plain(url)}", implementation="redispy", connection_pool=self._pool)  # pyright: ignore[reportArgumentType]
        self._limiter = MovingWindowRateLimiter(storage)
        self._limits = {
            provider: RateLimitItemPerMinute(limit, namespace="makeit3d")
            for provider, limit in per_minute.items()
            if limit is not None
        }

    async def hit(self, provider: str, user_id: UUID) -> None:
        """Count one request. Raises AppError(RATE_LIMITED) with the seconds until the next one fits.

        When Redis does not answer the request goes through: limits protect quotas, not correctness.
        """
        item = self._limits.get(provider)
        if item is None:
            return
        try:
            if await self._limiter.hit(item, provider, str(user_id)):
                return
            window = await self._limiter.get_window_stats(item, provider, str(user_id))
        except (redis.RedisError, OSError) as error:
            UNCOUNTED.inc()
            log.warning("rate_limit_uncounted", error=type(error).__name__)
            return
        raise AppError(
            ErrorCode.RATE_LIMITED,
            f"At most {item.amount} requests per minute.",
            retry_after=max(1, math.ceil(window.reset_time - time.time())),
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


def _plain(url: str) -> str:
    """The storage checks the scheme only; the pool holds the real address."""
    return "redis://localhost:6379" if url.startswith("unix:") else url
