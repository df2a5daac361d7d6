"""Runs beat, which needs nothing of what a worker is made of."""

from __future__ import annotations

from app.config import Settings
from app.tasks.celery_app import create_celery


def run_beat(settings: Settings) -> None:
    """Ring for a sweep on a schedule; a second beat is harmless."""
    settings.home.mkdir(parents=True, exist_ok=True)
    app = create_celery(settings)
    app.Beat(loglevel="WARNING", quiet=True).run()
