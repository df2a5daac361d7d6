"""Resident memory of processes, in MB."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MB = 1024.0


def resident(pid: int) -> float:
    """Resident memory in MB, without pages of files that are merely mapped (RssAnon)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / _MB
    raise ValueError(f"no memory figure for process {pid}")


@dataclass
class Peak:
    """The lowest start and the highest moment of a watched process."""

    start: float = 0.0
    highest: float = 0.0

    @property
    def growth(self) -> float:
        return self.highest - self.start


@contextmanager
def watched(pid: int) -> Generator[Peak]:
    """Sample a process every 20 ms while the block runs."""
    peak = Peak(resident(pid), resident(pid))
    ending = threading.Event()

    def sample() -> None:
        while not ending.is_set():
            peak.highest = max(peak.highest, resident(pid))
            time.sleep(0.02)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ending.set()
        thread.join()
