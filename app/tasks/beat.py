"""Runs beat, which needs nothing of what a worker is made of."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import structlog
from celery.apps.beat import Beat
from celery.beat import PersistentScheduler, Service

from app.config import Settings
from app.tasks.celery_app import create_celery

log = structlog.get_logger(__name__)


class Schedule(PersistentScheduler):
    """Celery's own, which would log the whole stack as text for each time that the broker does not answer."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:  # noqa: ANN401 - Celery's types
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 - whatever the broker does, beat tries again in time
            reason = error.__context__ or error  # Celery's own says only that there was one
            log.warning("bell_failed", lane=entry.options.get("queue"), error=type(reason).__name__)


def run_beat(settings: Settings) -> None:
    """Ring for a sweep on a schedule; a second beat is harmless. TERM and INT end it."""
    settings.home.mkdir(parents=True, exist_ok=True)
    schedule: Any = Schedule  # a class does as well as the name of one
    _Beat(app=create_celery(settings), loglevel="WARNING", quiet=True, scheduler_cls=schedule).run()


class _Beat(Beat):
    def install_sync_handler(self, service: Service) -> None:  # noqa: ARG002 - it closes its schedule at its end
        """Celery's own closes the schedule and then raises: a bell under way fails to save it, and beat takes that for
        the bell's failure and goes on."""

        def end(number: int, frame: FrameType | None) -> None:
            del number, frame
            raise SystemExit

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
