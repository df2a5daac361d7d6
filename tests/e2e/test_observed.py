"""One job seen from outside: its trace at a collector, its lines in the logs of all processes, and that neither a slow
nor a dead collector does harm."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.gateway import Gateway, User, gateway_in_new_home, wait_for
from tests.otlp_receiver import Collector, Received

CALLER = "00f067aa0ba902b7"
PROMPT = "a heron made of porcelain"
COLLECTOR_KEY = "key-of-the-collector"
SECRETS = ("sk-sandbox", "tsk_sandbox", "sb_secret_sandbox", COLLECTOR_KEY, "eyJ")


@dataclass
class Observed:
    gateway: Gateway
    user: User
    collector: Collector

    def make_model(self) -> tuple[str, dict[str, Any]]:
        """A finished job: its trace id, and the answer to its request."""
        trace = uuid4().hex
        answer = self.user.post(
            "/generate/text-to-model",
            {"task_id": f"heron-{trace[:8]}", "prompt": PROMPT},
            traceparent=f"00-{trace}-{CALLER}-01",
        )
        assert answer.status_code == 202, answer.text
        assert self.user.finished(answer.json()["job_id"])["status"] == "complete"
        return trace, answer.json()

    def trace(self, trace_id: str, *, until: str) -> dict[str, Received]:
        """The spans of a trace by name, once the one that ends last is there."""

        def look() -> dict[str, Received] | None:
            found = {span.name: span for span in self.collector.spans if span.trace_id == trace_id}
            return found if until in found else None

        return wait_for(look)

    def lines(self) -> dict[str, list[dict[str, Any]]]:
        """What each of our processes logged."""
        logs = {path.stem: path.read_text(encoding="utf-8") for path in (self.gateway.home / "logs").glob("*.log")}
        ours = {name: text for name, text in logs.items() if re.match("api|worker|beat", name)}
        # a last line without an end is still being written
        return {name: [json.loads(line) for line in text.split("\n")[:-1]] for name, text in ours.items()}


@pytest.fixture(scope="module")
def observed() -> Generator[Observed]:
    collector = Collector()
    with (
        collector.serving(),
        gateway_in_new_home(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"x-collector-key={COLLECTOR_KEY}",
            OTEL_BSP_SCHEDULE_DELAY="200",
            SANDBOX_KNOBS='{"drawing": "stock"}',
        ) as gateway,
    ):
        yield Observed(gateway, gateway.new_user(), collector)


@pytest.fixture(scope="module")
def model(observed: Observed) -> tuple[str, dict[str, Any]]:
    return observed.make_model()


def test_one_trace_goes_through_api_and_worker(observed: Observed, model: tuple[str, dict[str, Any]]) -> None:
    trace_id, accepted = model
    spans = observed.trace(trace_id, until="run generate_model")
    assert {(span.name, span.service) for span in spans.values()} >= {
        ("POST /generate/text-to-model", "makeit3d-api"),
        ("accept", "makeit3d-api"),
        ("run generate_model", "makeit3d-worker"),
        ("provider_call", "makeit3d-worker"),
        ("provider_work", "makeit3d-worker"),
        ("download", "makeit3d-worker"),
        ("upload", "makeit3d-worker"),
        ("settle", "makeit3d-worker"),
    }
    request, run = spans["POST /generate/text-to-model"], spans["run generate_model"]
    assert request.parent_id == CALLER
    assert spans["accept"].parent_id == request.span_id
    assert run.parent_id == spans["accept"].span_id
    for name in ("provider_call", "provider_work", "download", "upload", "settle"):
        assert spans[name].parent_id == run.span_id, name
    assert request.attributes["http.response.status_code"] == 202
    assert run.attributes["job_id"] == accepted["job_id"]
    assert run.attributes["outcome"] == "completed"
    assert not any(span.error for span in spans.values())


def test_spans_hold_no_content_and_no_secret(observed: Observed, model: tuple[str, dict[str, Any]]) -> None:
    trace_id, _ = model
    observed.trace(trace_id, until="run generate_model")
    told = repr(observed.collector.spans)
    for word in (PROMPT, observed.user.id, *SECRETS):
        assert word not in told
    assert all(headers["x-collector-key"] == COLLECTOR_KEY for headers in observed.collector.headers)


def test_every_line_of_a_job_has_its_ids(observed: Observed, model: tuple[str, dict[str, Any]]) -> None:
    trace_id, accepted = model

    def told() -> dict[str, list[dict[str, Any]]] | None:
        logs = observed.lines()
        about = {name: [line for line in lines if line.get("trace_id") == trace_id] for name, lines in logs.items()}
        return about if any(line["event"] == "run_ended" for lines in about.values() for line in lines) else None

    about = wait_for(told)
    api = about.pop("api")
    assert [line["event"] for line in api] == ["request_accepted", "request"]
    assert len({line["http_request_id"] for line in api}) == 1
    by_workers = [line for lines in about.values() for line in lines]
    assert {line["event"] for line in by_workers} >= {"tripo_exchange", "provider_call", "run_ended"}
    for line in (*api, *by_workers):
        assert [line[name] for name in ("task_id", "request_id", "job_id")] == [
            accepted[name] for name in ("task_id", "request_id", "job_id")
        ], line
    exchange = next(line for line in by_workers if line["event"] == "tripo_exchange")
    assert exchange["tripo_trace_id"] != trace_id


@pytest.mark.usefixtures("model")
def test_all_lines_of_all_processes_have_one_format(observed: Observed) -> None:
    for name, lines in observed.lines().items():
        for line in lines:
            assert {"event", "level", "logger", "timestamp"} <= set(line), (name, line)
    loggers = {line["logger"] for lines in observed.lines().values() for line in lines}
    assert any(logger.startswith("uvicorn") for logger in loggers), loggers


def test_a_collector_that_is_away_does_no_harm(observed: Observed) -> None:
    """The last test of the file: the collector does not come back."""
    observed.collector.stop()
    paid = len(observed.gateway.paid())
    observed.make_model()
    assert len(observed.gateway.paid()) == paid + 1

    def warned() -> list[str] | None:
        names = [
            name for name, lines in observed.lines().items() for line in lines if line["event"] == "traces_not_exported"
        ]
        return names if {"api", "worker"} <= {name.partition("-")[0] for name in names} else None

    assert len(names := wait_for(warned)) == len(set(names)), names
    observed.make_model()
    assert len(names := wait_for(warned)) == len(set(names)), names
