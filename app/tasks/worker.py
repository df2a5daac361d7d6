"""Runs a Celery worker process for a lane, with its metrics."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from celery import signals
from celery.utils.nodenames import host_format
from prometheus_client import start_http_server

from app import tracing
from app.config import Settings
from app.container import build_registry
from app.domain.jobs import Lane
from app.registry import Registry
from app.tasks.runtime import Runtime

log = structlog.get_logger(__name__)

# normal slots may also take priority work; priority slots serve the priority lane alone
LANES_OF: dict[Lane, tuple[Lane, ...]] = {"priority": ("priority",), "normal": ("priority", "normal")}

_BELL_THREADS = 2
_METRICS_PORTS = 16


def run_worker(settings: Settings, lane: Lane, *, registry: Registry | None = None) -> None:
    """Work until a signal ends the process. TERM is a warm shutdown, QUIT a cold one. ``registry`` is what it can do;
    normally all that the product has."""
    tracing.configure(settings, "makeit3d-worker")
    runtime = Runtime(settings, LANES_OF[lane], registry or build_registry())

    def leave() -> None:
        runtime.stop()
        tracing.close()

    # work begins before Celery listens to signals, and money may be in the air by then
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        # here and not in a signal of Celery's, which would swallow the failure and take bells that nobody answers
        runtime.start()
        serve_metrics(settings)
        worker = _worker(runtime, lane, leave)
        worker.start()
    except SystemExit:
        leave()
        raise
    sys.exit(worker.exitcode)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(0)


def _worker(runtime: Runtime, lane: Lane, leave: Callable[[], None]) -> Any:  # noqa: ANN401 - Celery has no types
    def shutting_down(**_: Any) -> None:  # noqa: ANN401 - Celery's signal arguments
        runtime.stop_claiming()

    def shut_down(**_: Any) -> None:  # noqa: ANN401
        leave()

    signals.worker_shutting_down.connect(shutting_down, weak=False)
    signals.worker_shutdown.connect(shut_down, weak=False)
    # past Celery's command line, which takes half a second to load
    return runtime.celery.Worker(
        pool_cls="threads",
        concurrency=_BELL_THREADS,
        queues=lane,
        hostname=host_format(f"{lane}-%n@%h"),
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )


def serve_metrics(settings: Settings) -> int | None:
    """Serve this process's metrics on the first free port from the setting on; the port. Work goes on without one."""
    first = settings.worker_metrics_port
    if first is None:
        return None
    for port in range(first, first + _METRICS_PORTS):
        try:
            start_http_server(port, addr=settings.worker_metrics_host)
        except OSError:
            continue
        log.info("metrics_served", port=port)
        return port
    log.error("metrics_not_served", host=settings.worker_metrics_host, first_port=first, ports=_METRICS_PORTS)
    return None
