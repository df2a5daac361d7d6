"""The latency that is ours: from accept to the handler's first line, and from accept to complete less the provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from tests.e2e.gateway import STOCK, Gateway, User

from bench.bench import Bench, BenchFailed
from bench.figures import Figure, percentile
from bench.servers import gateway

_JOBS, _QUICK_JOBS = 20, 5  # of each operation in a round
_OPERATIONS: Mapping[str, str] = {"image": "text-to-image", "model": "text-to-model"}

_TIMES = """
select j.id, extract(epoch from j.created_at)::float8 as accepted,
  extract(epoch from j.finished_at - j.created_at)::float8 as total,
  extract(epoch from coalesce(c.submitted_at, c.settled_at) - c.created_at)::float8 as posted,
  case when c.provider_task_id is null then 0
    else extract(epoch from c.settled_at - c.submitted_at) end::float8 as polled
from makeit3d.jobs j join makeit3d.provider_calls c on c.job_id = j.id where j.id = any($1::uuid[])
"""


def latency(bench: Bench) -> list[Figure]:
    """One job at a time on an idle installation."""
    bench.say("latency: starting the gateway")
    added: dict[str, list[list[float]]] = {name: [] for name in _OPERATIONS}
    started: list[list[float]] = []
    quick = {"SANDBOX_WORK_SECONDS": "0.1", "BFF_TRIPO_POLL_SECONDS": "0.2", "BFF_LOG_FORMAT": "json"}
    with gateway(**quick, **STOCK) as running:
        user = running.new_user()
        for operation in _OPERATIONS.values():
            finished_job(user, operation)  # warm
        for _ in bench.each_round("latency"):
            jobs: dict[str, list[str]] = {name: [] for name in _OPERATIONS}
            for _ in range(_QUICK_JOBS if bench.quick else _JOBS):
                for name, operation in _OPERATIONS.items():
                    jobs[name].append(finished_job(user, operation))
            starts = _starts(running)
            times = asyncio.run(_times(running, [job for ids in jobs.values() for job in ids]))
            started.append([1000 * (starts[job] - row["accepted"]) for job, row in times.items()])
            for name, ids in jobs.items():
                rows = [times[job] for job in ids]
                added[name].append([1000 * (row["total"] - row["posted"] - row["polled"]) for row in rows])
    figures = _figures("start", "start latency", started, "accept until the handler's first line")
    for name, rounds in added.items():
        figures += _figures(name, f"added latency, {name}", rounds, "accept to complete less the provider's own time")
    return figures


def _figures(name: str, label: str, rounds: list[list[float]], how: str) -> list[Figure]:
    together = [value for values in rounds for value in values]
    note = f"{how}; {len(together)} jobs, one at a time"
    return [
        Figure(f"latency.{name}_p50", f"{label} p50", "ms", tuple(percentile(values, 0.5) for values in rounds), note),
        Figure(f"latency.{name}_p99", f"{label} p99", "ms", (percentile(together, 0.99),), note),
    ]


def finished_job(user: User, operation: str, **fields: object) -> str:
    """A job of the operation that was waited for. Raises BenchFailed."""
    body = {"task_id": str(uuid4()), "prompt": "a small wooden boat", **fields}
    answer = user.post(f"/generate/{operation}", body)
    answer.raise_for_status()
    job: str = answer.json()["job_id"]
    status = user.finished(job)
    if status["status"] != "complete":
        raise BenchFailed(f"{operation} ended as {status['status']}: {status['error']}")
    return job


def _starts(running: Gateway) -> dict[str, float]:
    """When each job's handler began, by the workers' logs."""
    found: dict[str, float] = {}
    for log in (running.home / "logs").glob("worker-*.log"):
        for line in log.read_text(encoding="utf-8").splitlines():
            if "run_began" in line:
                event: dict[str, Any] = json.loads(line)
                found[event["job_id"]] = datetime.fromisoformat(event["timestamp"]).timestamp()
    return found


async def _times(running: Gateway, jobs: list[str]) -> dict[str, asyncpg.Record]:
    connection = await asyncpg.connect(running.dsn())
    try:
        rows = await connection.fetch(_TIMES, [UUID(job) for job in jobs])
    finally:
        await connection.close()
    return {str(row["id"]): row for row in rows}
