"""Forks the gateway's processes, armed, and forks each again when it dies: a new life costs no imports.

``python -m tests.chaos.crashes.nursery DIRECTORY KIND…`` with the settings in the environment; KIND is ``worker`` or
``api``, once per process. ``DIRECTORY/<kind>`` holds the plan of each kind.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import pkgutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import app.main
import celery.worker.consumer
import uvicorn
from app.ai_clients.registry import load_settings
from app.config import Settings
from app.domain.crash_points import arm
from app.observability import configure_logging
from app.tasks.worker import run_worker

from tests.chaos.crashes.plan import Plan
from tests.chaos.crashes.undertaker import undertaker

_PR_SET_PDEATHSIG = 1
UNEXPECTED = "unexpected"  # a file that tells of processes that ended in another way than by the plan

# what the servers would load at the start of every life
LOADED_LATE = (
    "celery.app.control",
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.control",
    "celery.worker.strategy",
    "kombu.transport.redis",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)


def load() -> None:
    """Everything that a life needs, before the first one."""
    consumer = celery.worker.consumer
    parts = [f"{consumer.__name__}.{found.name}" for found in pkgutil.iter_modules(consumer.__path__)]
    for name in (*LOADED_LATE, *parts):
        importlib.import_module(name)
    gc.freeze()  # children share what nobody writes to


def run(kind: str, settings: Settings) -> None:
    """The product's own mains."""
    configure_logging(settings)
    if kind == "worker":
        run_worker(settings, "normal")
    else:
        host, port = settings.api_host, settings.api_port
        uvicorn.run(app.main.create_app, factory=True, host=host, port=port, log_config=None, access_log=False)


def fork(life: Callable[[], None]) -> int:
    assert threading.active_count() == 1
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() == parent:
            life()
    except BaseException:  # noqa: BLE001 - nobody else would say what ended it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    directory, kinds = Path(sys.argv[1]), sys.argv[2:]
    settings = load_settings()
    load()
    read, deaths = os.pipe()
    dsn = settings.database_url.get_secret_value()
    living: dict[int, str] = {fork(lambda: undertaker(dsn, read)): "undertaker"}

    def born(kind: str) -> None:
        def life() -> None:
            arm(Plan(directory / kind).reached)
            run(kind, settings)

        living[fork(life)] = kind

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        for pid in living:
            os.kill(pid, signal.SIGKILL)
        for pid in living:
            os.waitpid(pid, 0)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    for kind in kinds:
        born(kind)
    while True:
        pid, status = os.waitpid(-1, 0)
        kind = living.pop(pid)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            with (directory / UNEXPECTED).open("a") as report:
                report.write(f"{kind} {pid} ended with {status}\n")
        os.write(deaths, f"{pid}\n".encode())
        born(kind)


if __name__ == "__main__":
    main()
