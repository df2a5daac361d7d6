"""A worker process of a gateway with plugins: ``python -m tests.unit.extension.worker``."""

from __future__ import annotations

from app.ai_clients.registry import load_settings
from app.observability import configure_logging
from app.tasks.worker import run_worker

from tests.unit.extension.registry import build_registry

if __name__ == "__main__":
    settings = load_settings()
    configure_logging(settings)
    run_worker(settings, "normal", registry=build_registry())
