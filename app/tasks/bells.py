"""Bells over Celery: coalesced per lane, published off the loop, failures swallowed and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog
from celery import Celery
from prometheus_client import Counter

from app.config import Settings
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import LANES, Lane
from app.tasks.celery_app import create_celery, ring
from app.tracing import detached

log = structlog.get_logger(__name__)

BELLS = Counter("makeit3d_bells_total", "Bells rung, by lane and outcome", ["lane", "outcome"])
for _lane in LANES:
    for _outcome in ("rung", "failed"):
        BELLS.labels(_lane, _outcome)

_AT_MOST_EVERY = 0.01  # seconds, per lane and process
_PUBLISH_TIMEOUT = 3.0


class CeleryBells:
    """Rings a lane at most once per 10 ms, with the trailing edge guaranteed."""

    def __init__(self, app: Celery, *, locally: Callable[[Lane], None] | None = None) -> None:
        self._app = app
        self._locally = locally
        self._wanted: set[Lane] = set()
        self._publisher: asyncio.Task[None] | None = None
        # a thread of its own: a broker that hangs must not hold those that decode and write files
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bells")

    def hear(self, locally: Callable[[Lane], None]) -> None:
        """Also wake this very process, without the broker."""
        self._locally = locally

    def ring(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self._wanted.add(lane)
            if self._locally is not None:
                self._locally(lane)
        if self._wanted and (self._publisher is None or self._publisher.done()):
            self._publisher = detached(self._publish())

    async def _publish(self) -> None:
        while self._wanted:
            lanes, self._wanted = sorted(self._wanted), set()
            for lane in lanes:
                await self._publish_one(lane)
            await asyncio.sleep(_AT_MOST_EVERY)

    async def _publish_one(self, lane: Lane) -> None:
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT):
                with boundary(Boundary.RING):
                    await asyncio.get_running_loop().run_in_executor(self._thread, ring, self._app, lane)
        except Exception as error:  # noqa: BLE001 - whatever the broker does, the sweep rings again
            BELLS.labels(lane, "failed").inc()
            log.warning("bell_failed", lane=lane, error=type(error).__name__)
        else:
            BELLS.labels(lane, "rung").inc()

    async def aclose(self) -> None:
        if self._publisher is not None:
            await self._publisher
        self._thread.shutdown(wait=False, cancel_futures=True)


def celery_bells(settings: Settings) -> CeleryBells:
    """Of a process that rings and does not hear."""
    return CeleryBells(create_celery(settings))
