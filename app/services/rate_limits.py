"""Requests per user and provider and minute, counted in Redis over all API processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
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

_WINDOW_SECONDS = 60
_ANSWER_SECONDS = 1.0  # Redis answers in a millisecond or is not well
_PAUSE_SECONDS = 2.0  # while Redis is away, one request in this time waits for it


class RateLimits:
    """One per process; owns its connections until ``aclose``. ``clock`` counts seconds from anywhere."""

    def __init__(
        self, redis_url: str, per_minute: Mapping[str, int | None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``per_minute`` maps a provider to its limit per user; None means no limit. No connection is made yet."""
        self._pool = redis.ConnectionPool.from_url(
            redis_py_url(redis_url), socket_connect_timeout=_ANSWER_SECONDS, socket_timeout=_ANSWER_SECONDS
        )
        # the pool holds the real address; the storage only wants to see one
        storage = RedisStorage("async+redis://localhost:6379", implementation="redispy", connection_pool=self._pool)  # pyright: ignore[reportArgumentType]
        self._limiter = MovingWindowRateLimiter(storage)
        self._limits = {
            provider: RateLimitItemPerMinute(limit, namespace="makeit3d")
            for provider, limit in per_minute.items()
            if limit is not None
        }
        self._clock = clock
        self._away_until = float("-inf")

    @property
    def count_any(self) -> bool:
        return bool(self._limits)

    async def hit(self, provider: str, user_id: UUID) -> None:
        """Count one request. Raises AppError(RATE_LIMITED) with the seconds until the next one fits.

        When Redis does not answer the request goes through: limits protect quotas, not correctness.
        """
        item = self._limits.get(provider)
        if item is None:
            return
        if self._clock() < self._away_until:
            UNCOUNTED.inc()
            return
        try:
            if await self._limiter.hit(item, provider, str(user_id)):
                return
            window = await self._limiter.get_window_stats(item, provider, str(user_id))
        except Exception as error:  # noqa: BLE001 - a connection that breaks also raises what is no RedisError
            self._away_until = self._clock() + _PAUSE_SECONDS
            UNCOUNTED.inc()
            log.warning("rate_limits_not_counted", error=type(error).__name__)
            return
        wait = math.ceil(window.reset_time - time.time())
        raise AppError(
            ErrorCode.RATE_LIMITED,
            f"At most {item.amount} requests per minute.",
            retry_after=min(max(1, wait), _WINDOW_SECONDS),
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
