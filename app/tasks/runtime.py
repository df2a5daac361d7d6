"""One asyncio loop in a thread per worker process owns clients, pool and slots; Celery's threads only wait on it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from importlib.metadata import version
from typing import Any, TypeVar
from uuid import uuid4

import structlog
from celery import Celery

from app.config import Settings
from app.container import WorkerContainer
from app.db.workers import WorkerIdentity
from app.domain.jobs import Lane
from app.registry import Registry
from app.tasks.bells import CeleryBells
from app.tasks.celery_app import create_celery

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Runtime:
    """Starts before the worker takes its first bell and ends after the last one."""

    def __init__(self, settings: Settings, lanes: tuple[Lane, ...], registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._identity = WorkerIdentity(
            id=uuid4(),
            name=f"{lanes[-1]}@{socket.gethostname()}",
            host=socket.gethostname(),
            pid=os.getpid(),
            lanes=lanes,
            slots=settings.worker_slots,
            version=version("makeit3d-bff"),
        )
        self.celery: Celery = create_celery(settings, self)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="makeit3d-loop", daemon=True)
        self._container: WorkerContainer | None = None

    def start(self) -> None:
        """Open everything; raises what opening raises, so that a worker that can not work does not start."""
        self._thread.start()
        bells = CeleryBells(self.celery)
        self._container = self._call(
            WorkerContainer.open(self._settings, self._identity, bells, registry=self._registry)
        )
        engine = self._container.engine

        def wake(lane: Lane) -> None:
            if lane in self._identity.lanes:
                engine.wake()

        bells.hear(wake)
        self._call(self._container.start())

    def run_shift(self) -> None:
        if self._container is not None:
            self._call(self._container.engine.run_shift())

    def sweep(self) -> None:
        if self._container is not None:
            self._call(self._container.sweeper.sweep())

    def stop_claiming(self) -> None:
        """From any thread or signal handler: begin the warm shutdown."""
        if self._container is not None:
            self._loop.call_soon_threadsafe(self._container.engine.stop_claiming)

    def stop(self) -> None:
        """Finish what has money in the air, hand back the rest, close everything; also before all of it had begun."""
        if self._container is not None:
            self._call(self._container.aclose())
            self._container = None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the worker's loop has stopped") from None
        except SystemExit:  # of a signal: what has not ended does not go on beside its own end
            future.cancel()
            raise

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
