"""CPU time of processes and of what they started, from /proc; nothing where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_PROC = Path("/proc")
_UTIME, _STIME, _CUTIME, _CSTIME, _PPID = 11, 12, 13, 14, 1  # of the fields after the command's name


def available() -> bool:
    return (_PROC / "self" / "stat").exists()


def parse_stat(line: str) -> list[str]:
    """The fields after the command's name, which may itself hold spaces and brackets."""
    return line[line.rindex(")") + 2 :].split()


def family_seconds(pid: int) -> float:
    """CPU seconds of a process, its living children and the children that it outlived."""
    ticks = 0
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = parse_stat((entry / "stat").read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError):  # it ended meanwhile
            continue
        if int(entry.name) == pid:
            ticks += sum(int(fields[number]) for number in (_UTIME, _STIME, _CUTIME, _CSTIME))
        elif int(fields[_PPID]) == pid:
            ticks += int(fields[_UTIME]) + int(fields[_STIME])
    return ticks / os.sysconf("SC_CLK_TCK")


class CpuWatch:
    """CPU seconds of groups of processes since it began: ``{"api": [pid]}``."""

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: list(pids) for name, pids in groups.items()}
        self._began = self._now()

    def spent(self) -> dict[str, float]:
        return {name: seconds - self._began[name] for name, seconds in self._now().items()}

    def _now(self) -> dict[str, float]:
        if not available():
            return {}
        return {name: sum(family_seconds(pid) for pid in pids) for name, pids in self._groups.items()}
