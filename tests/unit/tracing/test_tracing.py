"""Spans as a collector receives them, and as good as nothing where none is configured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from app import tracing
from app.config import Settings
from app.tracing import Place, detached, span, span_id_of

from tests.integration.factories import settings_for
from tests.otlp_receiver import Collector, Received

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Generator[Collector]:
    collector = Collector()
    with collector.serving():
        yield collector
    tracing.close()


def configured(tmp_path: Path, collector: Collector, **changes: object) -> Settings:
    return settings_for("postgresql://nobody@127.0.0.1/none", tmp_path, otlp_endpoint=collector.url, **changes)


def received(collector: Collector) -> dict[str, Received]:
    tracing.close()
    return {item.name: item for item in collector.spans}


async def test_spans_lie_in_one_another_and_where_they_are_put(tmp_path: Path, collector: Collector) -> None:
    tracing.configure(configured(tmp_path, collector), "test")
    request_id = uuid4()

    async def aside() -> None:
        assert structlog.contextvars.get_contextvars() == {}
        with span("aside"):
            pass

    with (
        structlog.contextvars.bound_contextvars(job_id="one's"),
        span("request", place=Place(TRACE, CALLER)),
        span("accept", own_id=request_id, task_id="t", nothing=None),
    ):
        await detached(aside())
        with span("run", place=Place(TRACE, span_id_of(request_id))), span("settle") as settle:
            settle.set(jobs=2)
    with span("first", place=Place(TRACE)):
        pass
    found = received(collector)
    assert found["request"].parent_id == CALLER
    assert found["accept"].parent_id == found["request"].span_id
    assert found["accept"].span_id == span_id_of(request_id) == found["run"].parent_id
    assert found["accept"].attributes == {"task_id": "t"}
    assert found["settle"].parent_id == found["run"].span_id
    assert found["settle"].attributes == {"jobs": 2}
    assert found["first"].parent_id == ""
    assert {found[name].trace_id for name in ("request", "accept", "run", "settle", "first")} == {TRACE}
    assert found["aside"].trace_id != TRACE


def test_an_error_is_told_by_its_type_alone(tmp_path: Path, collector: Collector) -> None:
    tracing.configure(configured(tmp_path, collector), "test")
    with pytest.raises(ValueError, match="a prompt"), span("settle"):
        raise ValueError("a prompt, perhaps")
    found = received(collector)["settle"]
    assert found.error
    assert found.attributes == {"error.type": "ValueError"}
    assert "prompt" not in repr(found)


def test_a_part_of_all_traces_is_kept_by_trace_id(tmp_path: Path, collector: Collector) -> None:
    tracing.configure(configured(tmp_path, collector, trace_ratio=0.5), "test")
    for trace_id in (TRACE[:16] + "0" * 15 + "1", TRACE[:16] + "f" * 16):
        for process in ("api", "worker"):
            with span(process, place=Place(trace_id, CALLER)):
                pass
    tracing.close()
    assert {(item.name, item.trace_id[-1]) for item in collector.spans} == {("api", "1"), ("worker", "1")}


def test_spans_that_nobody_takes_are_dropped(tmp_path: Path, collector: Collector) -> None:
    """More than the queue holds, and a collector that is away."""
    tracing.configure(configured(tmp_path, collector), "test")
    collector.stop()
    for _ in range(5_000):
        with span("run"):
            pass
    tracing.close()
    with span("run"):  # as before it was configured
        pass
    assert collector.spans == []


def test_processes_that_are_not_traced_load_nothing_of_it() -> None:
    program = (
        "import sys, app.main, app.tasks.worker; "
        "sys.exit(any(name.startswith(('opentelemetry.sdk.trace', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
