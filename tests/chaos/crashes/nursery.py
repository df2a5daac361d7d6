"""Forks the gateway's processes, armed, and forks each again when it dies: a new life costs no imports.

``python -m tests.chaos.crashes.nursery DIRECTORY KIND…`` with the settings in the environment; KIND is ``worker`` or
``api``, once per process. ``DIRECTORY/<kind>`` holds the plan of each kind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import app.main
import uvicorn
from app.config import Settings
from app.domain.crash_points import arm
from app.observability import configure_logging
from app.tasks.worker import run_worker

from tests.chaos.crashes.plan import Plan

_PR_SET_PDEATHSIG = 1
UNEXPECTED = "unexpected"  # a file that tells of processes that ended in another way than by the plan


def run(kind: str, settings: Settings) -> None:
    """The product's own mains."""
    configure_logging(settings)
    if kind == "worker":
        run_worker(settings, "normal")
    else:
        host, port = settings.api_host, settings.api_port
        uvicorn.run(app.main.create_app, factory=True, host=host, port=port, log_config=None, access_log=False)


def fork(kind: str, directory: Path, settings: Settings) -> int:
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
            arm(Plan(directory / kind).reached)
            run(kind, settings)
    finally:
        os._exit(1)


def main() -> None:
    directory, kinds = Path(sys.argv[1]), sys.argv[2:]
    settings = Settings.load()
    living: dict[int, str] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        for pid in living:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    for kind in kinds:
        living[fork(kind, directory, settings)] = kind
    while True:
        pid, status = os.waitpid(-1, 0)
        kind = living.pop(pid)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            with (directory / UNEXPECTED).open("a") as report:
                report.write(f"{kind} {pid} ended with {status}\n")
        living[fork(kind, directory, settings)] = kind


if __name__ == "__main__":
    main()
