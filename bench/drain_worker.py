"""A worker process whose jobs do nothing: it drains the queue of a database and prints how long that took.

It is the product's engine with everything around it, wake-ups over the broker included; only the handler does no work.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

from app.calls.executor import PaidCallExecutor
from app.calls.spool import Spool
from app.container import build_registry, open_queue, user_limits
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.jobs import Outcome
from app.observability import configure_logging
from app.services.breaker import Breakers
from app.services.engine import Engine
from app.services.job_run import JobRun, RunnableType
from app.services.leftovers import Leftovers
from app.services.notifier import Notifier
from app.services.outcomes import RetryPolicy
from app.services.publisher import Publisher
from app.services.settler import Settler
from app.storage.memory import MemoryStorage
from app.tasks.bells import CeleryBells
from app.tasks.celery_app import create_celery
from pydantic import SecretStr
from tests.kernel import ASSET_KINDS

from bench.backlog import completed, output_of, queue_settings

_POLL_SECONDS = 0.002


class NoOp:
    """Ends each job as completed at once."""

    def __init__(self, jobs: int) -> None:
        self.began: float | None = None
        self.left = jobs
        self.last_began = asyncio.Event()

    async def run(self, run: JobRun) -> Outcome:
        if self.began is None:
            self.began = time.perf_counter()
        self.left -= 1
        if self.left == 0:
            self.last_began.set()
        return completed(run.job, output_of(run.assets))


async def drain(dsn: str, broker: str, home: Path, jobs: int, slots: int) -> float:
    """Seconds from the first handler's start until the last job is recorded."""
    settings = queue_settings(dsn, home, redis_url=SecretStr(broker), worker_slots=slots)
    configure_logging(settings)
    handler = NoOp(jobs)
    async with AsyncExitStack() as stack:
        database = await Database.open(settings, ASSET_KINDS, application_name="makeit3d bench worker")
        stack.push_async_callback(database.close)
        bells = CeleryBells(create_celery(settings))
        stack.push_async_callback(bells.aclose)
        notifier = Notifier(database)
        stack.push_async_callback(notifier.aclose)
        spool = Spool(settings.spool_directory, max_bytes=settings.spool_bytes)
        spool.open()
        queue = open_queue(database, build_registry())
        publisher = Publisher(queue, bells, notifier, user_limits(settings))
        stack.push_async_callback(publisher.aclose)
        engine = Engine(
            queue,
            WorkerIdentity(uuid4(), "bench", "localhost", os.getpid(), ("priority", "normal"), slots),
            {"generate_images": RunnableType(handler.run, RetryPolicy.of(settings))},
            posts=PaidCallExecutor(database, spool.markers, Breakers(database, bells, settings)),
            settler=Settler(queue, publisher, window_seconds=settings.settle_window_ms / 1000),
            publisher=publisher,
            leftovers=Leftovers(database, MemoryStorage(home, {}), settings),
            bells=bells,
            settings=settings,
        )
        bells.hear(lambda _: engine.wake())
        await engine.start()
        engine.wake()
        async with asyncio.timeout(120):
            await handler.last_began.wait()
            while engine.running:  # noqa: ASYNC110 - the engine says so to nobody
                await asyncio.sleep(_POLL_SECONDS)
        ended = time.perf_counter()
        await engine.stop()
    assert handler.began is not None
    return ended - handler.began


def main() -> None:
    dsn, broker, home, jobs, slots = sys.argv[1:]
    print(json.dumps({"seconds": asyncio.run(drain(dsn, broker, Path(home), int(jobs), int(slots)))}))


if __name__ == "__main__":
    main()
