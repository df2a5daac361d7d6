"""``make bench``: accepts and status polls per second, the latency that is ours, and memory.

Everything runs on this machine: gateway, embedded servers, stand-ins and the load itself share its cores.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from itertools import count
from uuid import uuid4

import asyncpg
from rich.console import Console
from tests.e2e.gateway import Gateway, User, gateway_in_new_home, wait_for

from bench.claims import claims
from bench.load import Load, request_maker, run
from bench.memory import resident, watched

_ACCEPTS = 2000
_POLLS = 5000
_CONNECTIONS = 16
_IN_FLIGHT = 500
_MODEL_BYTES = 300 * 1024 * 1024

Row = tuple[str, str, str]


def main() -> None:
    console = Console(width=120, highlight=False)
    console.print("MakeIt3D BFF, embedded, sandbox providers")
    for name in sys.argv[1:] or list(PARTS):
        for figure, value, how in PARTS[name]():
            console.print(f"{figure:34} {value:>10}  [dim]{how}[/]")


def throughput() -> list[Row]:
    """Accepts and polls while workers have nothing they may claim."""
    limits = {"BFF_TRIPO_H_SLOTS": "1", "BFF_TRIPO_REQUESTS_PER_MINUTE": "1000000"}
    with gateway_in_new_home(SANDBOX_WORK_SECONDS="600", **limits) as gateway:
        user = gateway.new_user()
        make = request_maker(gateway.api_url, user.token)
        tasks = [str(uuid4()) for _ in range(_ACCEPTS)]

        def accept(task: str) -> bytes:
            body = json.dumps({"task_id": task, "prompt": "a small wooden boat"}).encode()
            return make("POST", "/generate/text-to-model", body)

        asyncio.run(run(gateway.api_url, iter([accept(str(uuid4())) for _ in range(50)]), connections=4))
        accepts = asyncio.run(run(gateway.api_url, iter([accept(task) for task in tasks]), connections=_CONNECTIONS))
        numbers = count()
        polls = (make("GET", f"/tasks/{tasks[next(numbers) % _ACCEPTS]}/status", b"") for _ in range(_POLLS))
        polled = asyncio.run(run(gateway.api_url, polls, connections=_CONNECTIONS))
        gateway.kill()
    return [_load_row("accepts", accepts), _load_row("status polls", polled)]


def latency() -> list[Row]:
    """From accept to complete, less the provider's own time and the wait for the next poll."""
    rows: list[Row] = []
    with gateway_in_new_home(SANDBOX_WORK_SECONDS="1", BFF_TRIPO_POLL_SECONDS="0.5") as gateway:
        user = gateway.new_user()
        for operation in ("text-to-image", "text-to-model"):
            _finish(user, operation)  # warm
            jobs = [_finish(user, operation) for _ in range(8)]
            ours = sorted(asyncio.run(_own_milliseconds(gateway, job)) for job in jobs)
            how = f"median of {len(ours)}; provider and poll wait taken off; worst {ours[-1]:.0f} ms"
            rows.append((f"added latency, {operation}", f"{ours[len(ours) // 2]:.0f} ms", how))
    return rows


async def _own_milliseconds(gateway: Gateway, job_id: str) -> float:
    connection = await asyncpg.connect(gateway.dsn())
    try:
        row = await connection.fetchrow(
            "select extract(epoch from j.finished_at - j.created_at) as total,"
            " extract(epoch from coalesce(c.submitted_at, c.settled_at) - c.created_at) as posted,"
            " extract(epoch from c.settled_at - c.submitted_at) as polled, c.provider_task_id is not null as is_polled"
            " from jobs j join provider_calls c on c.job_id = j.id where j.id = $1::text::uuid",
            job_id,
        )
    finally:
        await connection.close()
    assert row is not None
    theirs = row["posted"] + (row["polled"] if row["is_polled"] else 0)
    return 1000 * float(row["total"] - theirs)


def transfers() -> list[Row]:
    """Growth of the worker while large results pass through it."""
    rows: list[Row] = []
    with gateway_in_new_home(BFF_MAX_MODEL_BYTES=str(2 * _MODEL_BYTES)) as gateway:
        user = gateway.new_user()
        _finish(user, "text-to-model")
        (worker,) = gateway.pids("worker --lane normal")
        gateway.fault("tripo.task", "heavy")
        with watched(worker) as peak:
            _finish(user, "text-to-model")
        rows.append(("300 MB model, worker growth", f"{peak.growth:.0f} MB", f"from {peak.start:.0f} MB, RssAnon"))
        with watched(worker) as peak:
            _finish(user, "text-to-image", n=10, size="3840x2160")
        rows.append(("ten 4K images, worker growth", f"{peak.growth:.0f} MB", f"from {peak.start:.0f} MB, RssAnon"))
    return rows


def in_flight() -> list[Row]:
    """Memory of one worker process that holds 500 open calls."""
    slots = {"BFF_OPENAI_SLOTS": "600", "BFF_WORKER_SLOTS": "600", "BFF_OPENAI_REQUESTS_PER_MINUTE": "100000"}
    with gateway_in_new_home(**slots) as gateway:
        user = gateway.new_user()
        gateway.fault("openai", "stall_after", count=None, seconds=600)
        for _ in range(_IN_FLIGHT):
            body = {"task_id": str(uuid4()), "prompt": "a lighthouse"}
            user.post("/generate/text-to-image", body).raise_for_status()
        wait_for(lambda: True if len(gateway.paid()) >= _IN_FLIGHT else None, seconds=300)
        (worker,) = gateway.pids("worker --lane normal")
        megabytes = resident(worker)
        gateway.kill()
    return [(f"{_IN_FLIGHT} calls in flight, one worker", f"{megabytes:.0f} MB", "RssAnon")]


def _finish(user: User, operation: str, **fields: object) -> str:
    body = {"task_id": str(uuid4()), "prompt": "a small wooden boat", **fields}
    answer = user.post(f"/generate/{operation}", body)
    answer.raise_for_status()
    job: str = answer.json()["job_id"]
    status = user.finished(job)
    if status["status"] != "complete":
        raise SystemExit(f"{operation} ended as {status['status']}: {status['error']}")
    return job


def _load_row(name: str, load: Load) -> Row:
    codes = ", ".join(f"{number}×{code}" for code, number in sorted(load.statuses.items()))
    how = f"{_CONNECTIONS} connections, {codes}; p50 {load.percentile(0.5):.1f} ms, p99 {load.percentile(0.99):.1f} ms"
    return name, f"{load.per_second:.0f}/s", how


PARTS: dict[str, Callable[[], list[Row]]] = {
    "throughput": throughput,
    "latency": latency,
    "transfers": transfers,
    "in-flight": in_flight,
    "claims": claims,
}

if __name__ == "__main__":
    main()
