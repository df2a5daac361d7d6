"""Memory of a worker: while large results pass through it, and with many calls open."""

from __future__ import annotations

from uuid import uuid4

from tests.e2e.gateway import wait_for

from bench.bench import Bench
from bench.figures import Figure
from bench.latency import finished_job
from bench.resident import resident, watched
from bench.servers import gateway

_MODEL_BYTES = 300 * 1024 * 1024
_IN_FLIGHT = 500
_WORKER = "worker --lane normal"


def memory(bench: Bench) -> list[Figure]:
    if bench.quick:
        return [Figure("memory.worker", "memory of a worker", "MB", missing="not measured in a quick run")]
    bench.say("memory: large results")
    figures = _transfers()
    bench.say(f"memory: {_IN_FLIGHT} open calls")
    return [*figures, _in_flight()]


def _transfers() -> list[Figure]:
    with gateway(BFF_MAX_MODEL_BYTES=str(2 * _MODEL_BYTES), SANDBOX_WORK_SECONDS="0.3") as running:
        user = running.new_user()
        finished_job(user, "text-to-model")
        (worker,) = running.pids(_WORKER)
        running.fault("tripo.task", "heavy")
        with watched(worker) as model:
            finished_job(user, "text-to-model")
        with watched(worker) as images:
            finished_job(user, "text-to-image", n=10, size="3840x2160")
    return [
        Figure("memory.model", "300 MB model, growth", "MB", (model.growth,), f"RssAnon, from {model.start:.0f} MB"),
        Figure(
            "memory.images", "ten 4K images, growth", "MB", (images.growth,), f"RssAnon, from {images.start:.0f} MB"
        ),
    ]


def _in_flight() -> Figure:
    """One worker process that holds open calls."""
    with gateway(BFF_OPENAI_SLOTS=str(_IN_FLIGHT + 100), BFF_WORKER_SLOTS=str(_IN_FLIGHT + 100)) as running:
        user = running.new_user()
        running.fault("openai", "stall_after", count=None, seconds=600)
        for _ in range(_IN_FLIGHT):
            body = {"task_id": str(uuid4()), "prompt": "a lighthouse"}
            user.post("/generate/text-to-image", body).raise_for_status()
        wait_for(lambda: True if len(running.paid()) >= _IN_FLIGHT else None, seconds=300)
        (worker,) = running.pids(_WORKER)
        megabytes = resident(worker)
        running.kill_all()
    return Figure("memory.in_flight", f"{_IN_FLIGHT} open calls", "MB", (megabytes,), "RssAnon of one worker process")
