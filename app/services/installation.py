"""Gauges of the whole installation, read from the database when somebody scrapes."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import structlog
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from app.db import installation
from app.db.installation import Installation
from app.db.pool import UNREACHABLE, Database
from app.services import breaker

log = structlog.get_logger(__name__)

_FRESH_SECONDS = 5.0  # however many scrape, the database is asked this often
_PATIENCE_SECONDS = 5.0


class InstallationGauges:
    """A registry of its own: what can not be read just now is left out instead of told from memory."""

    def __init__(self, database: Database, *, worker_ttl_seconds: float) -> None:
        self._database = database
        self._ttl = worker_ttl_seconds
        self._lock = asyncio.Lock()
        self._text = b""
        self._read_at = float("-inf")

    async def text(self) -> bytes:
        """In Prometheus' text format, a few seconds old at most."""
        async with self._lock:
            if time.monotonic() - self._read_at > _FRESH_SECONDS:
                self._text = await self._render()
                self._read_at = time.monotonic()
            return self._text

    async def _render(self) -> bytes:
        registry = CollectorRegistry()
        readable = Gauge("makeit3d_database_readable", "1 when this scrape could read the database", registry=registry)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                found = await installation.read(self._database, worker_ttl_seconds=self._ttl)
                await breaker.look(self._database)
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            log.warning("installation_not_read", error=type(error).__name__)
            readable.set(0)
        else:
            readable.set(1)
            _fill(registry, found)
        return generate_latest(registry)


def _fill(registry: CollectorRegistry, found: Installation) -> None:
    jobs = Gauge(
        "makeit3d_queue_jobs",
        "Queued jobs, by what they wait for; 500 stands for so many or more",
        ["lane", "pool", "waiting_for"],
        registry=registry,
    )
    age = Gauge(
        "makeit3d_queue_age_seconds",
        "How long the oldest job that could run and never ran has waited",
        ["lane", "pool"],
        registry=registry,
    )
    for queue in found.queues:
        jobs.labels(queue.lane, queue.pool, queue.waiting_for).set(queue.jobs)
        if queue.age_seconds is not None:
            age.labels(queue.lane, queue.pool).set(queue.age_seconds)
    used = Gauge("makeit3d_pool_slots_used", "Slots taken, as claims count them", ["pool"], registry=registry)
    slots = Gauge("makeit3d_pool_slots", "Slots by setting", ["pool"], registry=registry)
    for pool in found.pools:
        used.labels(pool.name).set(pool.used)
        if pool.slots is not None:
            slots.labels(pool.name).set(pool.slots)
    calls = Gauge("makeit3d_open_calls", "Paid calls that are not over", ["provider", "state"], registry=registry)
    oldest = Gauge(
        "makeit3d_open_call_age_seconds", "Age of the oldest such call", ["provider", "state"], registry=registry
    )
    for call in found.calls:
        calls.labels(call.provider, call.state).set(call.calls)
        oldest.labels(call.provider, call.state).set(call.oldest_seconds)
    workers = Gauge("makeit3d_workers", "Live workers that take work of a lane", ["lane"], registry=registry)
    for lane, count in found.workers.items():
        workers.labels(lane).set(count)
