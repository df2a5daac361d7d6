"""A worker process of a gateway with plugins: ``python -m tests.unit.extension.worker [failpoint [times]]``.

It is killed when it reaches the failpoint for the last of so many times.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from app.domain.crash_points import CrashPoint, arm
from app.observability import configure_logging
from app.tasks.worker import run_worker

from tests.unit.extension.registry import build_registry


def die_at(failpoint: str, times: int = 1) -> Callable[[CrashPoint, tuple[str, ...]], None]:
    left = times

    def reached(point: CrashPoint, tasks: tuple[str, ...]) -> None:
        nonlocal left
        del tasks
        left -= str(point) == failpoint
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


if __name__ == "__main__":
    if len(sys.argv) > 1:
        arm(die_at(sys.argv[1], *map(int, sys.argv[2:])))
    registry = build_registry()
    settings = registry.providers.settings.load()  # a plugin's as well
    configure_logging(settings)
    run_worker(settings, "normal", registry=registry)
