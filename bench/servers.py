"""Starts what the parts measure: the gateway with a normal installation's pace, and the constants beside it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from app.ai_clients.registry import build_registry
from tests.e2e.gateway import Gateway, User, gateway_in_new_home
from tests.loopback import loopback
from tests.servers import free_port

from bench.bench import BenchFailed
from bench.cpu import CpuWatch

_REPOSITORY = Path(__file__).resolve().parents[1]
_START_SECONDS = 30.0
PROMPT = "a small wooden boat"
# the helper's housekeeping is quick for tests; a figure is of the product's own pace
_OWN_PACE = ("BFF_WORKER_TTL_SECONDS", "BFF_SWEEP_SECONDS", "BFF_BREAKER_COOL_DOWN_SECONDS")
_UNLIMITED = {"BFF_OPENAI_REQUESTS_PER_MINUTE": "1000000", "BFF_TRIPO_REQUESTS_PER_MINUTE": "1000000"}


@contextlib.contextmanager
def gateway(**changes: str) -> Generator[Gateway]:
    """The whole product with durable embedded servers, and no limit of requests per user."""
    defaults = {str(field.alias): str(field.default) for field in build_registry().settings.model_fields.values()}
    paces = {name: defaults[name] for name in _OWN_PACE}
    with gateway_in_new_home(**paces, **_UNLIMITED, **changes) as running:
        yield running


def watch(running: Gateway) -> CpuWatch:
    """The CPU of the API, of Postgres and of the workers from now on."""
    groups = {"API": "app.cli api", "Postgres": "bin/postgres", "workers": "app.cli worker"}
    return CpuWatch({name: running.pids(word) for name, word in groups.items()})


@dataclass(frozen=True, slots=True)
class Constants:
    raw: str
    framework: str


@dataclass(frozen=True, slots=True)
class Busy:
    """A gateway whose only slot of the pool is taken for long: what is accepted waits, and what is polled does not
    change meanwhile. ``waiting`` is a task of the user's that waits."""

    gateway: Gateway
    user: User
    waiting: str
    constants: Constants


@contextlib.contextmanager
def busy_gateway() -> Generator[Busy]:
    with gateway(SANDBOX_WORK_SECONDS="600", BFF_TRIPO_H_SLOTS="1") as running:
        user = running.new_user()
        answer = user.post("/generate/text-to-model", {"task_id": str(uuid4()), "prompt": PROMPT})
        answer.raise_for_status()
        waiting = user.ask("text-to-model", PROMPT)
        with _constants(status=user.status(waiting), accepted=answer.json(), dsn=running.dsn()) as constants:
            try:
                yield Busy(running, user, waiting, constants)
            finally:
                running.kill_all()  # the open call would hold the shutdown


@contextlib.contextmanager
def _constants(*, status: dict[str, Any], accepted: dict[str, Any], dsn: str) -> Generator[Constants]:
    told = json.dumps({"status": status, "accepted": accepted, "dsn": dsn})
    with _server("raw", told) as raw, _server("framework", told) as framework:
        yield Constants(raw, framework)


@contextlib.contextmanager
def _server(kind: str, told: str) -> Generator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.constants", kind, str(port)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_REPOSITORY,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(told)
        process.stdin.close()
        _wait_until_it_answers(process, url)
        yield url
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()


def _wait_until_it_answers(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise BenchFailed(f"The constant server ended: {process.stderr.read()[-500:]}")
        with contextlib.suppress(httpx.TransportError):
            loopback.get(url)
            return
        time.sleep(0.05)
    raise BenchFailed(f"The constant server did not answer within {_START_SECONDS:.0f} s; is the machine overloaded?")
