"""The trace of an HTTP request goes with its jobs to whoever runs them."""

from __future__ import annotations

import pytest
from app.config import Settings

from tests import kernel
from tests.integration.factories import make_worker
from tests.integration.http_gateway import gateway

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(f"00-{TRACE}-00f067aa0ba902b7-01", True), (f"00-{'0' * 32}-00f067aa0ba902b7-01", False), ("garbage", False)],
)
async def test_a_claim_carries_the_trace_of_its_request(settings: Settings, sent: str, *, kept: bool) -> None:
    async with gateway(settings) as gate:
        body = {"task_id": "task-trace-1", "prompt": "a fox"}
        answer = await gate.post("/generate/text-to-image", json=body, headers={"traceparent": sent})
        assert answer.status_code == 202, answer.text
        worker = await make_worker(gate.db)
        (job,) = (await kernel.claim(gate.db, worker_id=worker.id, lanes=worker.lanes, limit=5)).jobs
        assert job.trace_id is not None
        assert len(job.trace_id) == 32
        assert (job.trace_id == TRACE) is kept
