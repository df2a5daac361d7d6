"""Runs beat, which needs nothing of what a worker is made of."""

from __future__ import annotations

from typing import Any

import structlog
from celery.beat import PersistentScheduler

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
    """Ring for a sweep on a schedule; a second beat is harmless."""
    settings.home.mkdir(parents=True, exist_ok=True)
    app = create_celery(settings)
    app.Beat(loglevel="WARNING", quiet=True, scheduler_cls=Schedule).run()
