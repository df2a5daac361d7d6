"""Who dies where: a directory that the test writes, and that every process of the gateway under test obeys."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import structlog
from app.domain.crash_points import CrashPoint

ANYBODY = "anybody"  # the case of points that belong to no task


@dataclass(frozen=True, slots=True)
class Plan:
    """Per case (a task id, or ANYBODY) a point, and how many processes die there. A death is a file, made once."""

    directory: Path

    def condemn(self, case: str, point: CrashPoint, times: int) -> None:
        written = self.directory / f"{case}.new"
        written.write_text(json.dumps({"point": str(point), "times": times}))
        written.rename(self.directory / case)

    def deaths(self, case: str) -> int:
        return sum(1 for _ in self.directory.glob(f"{case}.death-*"))

    def strikes(self, case: str, point: CrashPoint) -> bool:
        """Whether this process dies now; each death is granted once."""
        try:
            sentence = json.loads((self.directory / case).read_text())
        except FileNotFoundError:
            return False
        if sentence["point"] != str(point):
            return False
        for number in range(sentence["times"]):
            try:
                (self.directory / f"{case}.death-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False

    def reached(self, point: CrashPoint, tasks: tuple[str, ...]) -> None:
        """For ``arm``: end the process as a power cut would."""
        at_work = structlog.contextvars.get_contextvars().get("task_id")
        for case in (*(tasks or ((at_work,) if at_work else ())), ANYBODY):
            if self.strikes(case, point):
                os.kill(os.getpid(), signal.SIGKILL)
