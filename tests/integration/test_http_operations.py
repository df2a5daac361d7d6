"""Health, metrics, documents, cross-origin rules, and a stop that waits for nobody who only waits."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from app.config import Settings
from app.embedded.valkey import EmbeddedValkey
from app.errors import ErrorCode
from pydantic import SecretStr

from tests.integration.factories import accept, image_plan, settings_for
from tests.integration.http_gateway import Gateway, gateway


@pytest.fixture
async def gate(settings: Settings) -> AsyncGenerator[Gateway]:
    async with gateway(settings) as opened:
        yield opened


async def test_ready_says_what_is_missing(gate: Gateway) -> None:
    live = await gate.http.get("/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "ok", "environment": "sandbox"})
    answer = await gate.http.get("/health/ready")  # no broker at this address
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["parts"] == {"database": "ok", "broker": "unreachable", "storage": "ok", "process": "ok"}
    await gate.db.execute("drop table makeit3d.jobs cascade")
    answer = await gate.http.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert answer.json()["parts"]["database"] == "not migrated"
    assert "database: not migrated" in answer.json()["detail"]
    gate.services.events.stop()
    assert (await gate.http.get("/health/ready")).json()["parts"]["process"] == "stopping"


async def test_ready_when_all_is_there(database: str, tmp_path: Path, valkey: EmbeddedValkey) -> None:
    settings = settings_for(database, tmp_path, redis_url=SecretStr(valkey.url()))
    async with gateway(settings) as gate:
        answer = await gate.http.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_a_database_that_goes_away_is_told(gate: Gateway) -> None:
    await gate.db.close()
    answer = await gate.get("/tasks")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    ready = await gate.http.get("/health/ready")
    assert ready.json()["parts"]["database"] == "unreachable"


async def test_metrics_count_by_route(gate: Gateway) -> None:
    await gate.get("/tasks/task-metric-1/status")
    await gate.http.get("/no/such/thing?key=abcdefgh")
    await gate.http.request("MADEUP", "/tasks")
    text = (await gate.http.get("/metrics")).text
    assert 'makeit3d_http_requests_total{method="GET",route="/tasks/{id}/status",status="404"} ' in text
    assert 'route="(none)"' in text
    assert "process_resident_memory_bytes" in text
    for unwanted in ("task-metric-1", "abcdefgh", "MADEUP", "/no/such"):
        assert unwanted not in text


async def test_the_document_of_the_contract(gate: Gateway) -> None:
    schema = (await gate.http.get("/openapi.json")).json()
    assert "sandbox" in schema["info"]["title"]
    assert {"accessToken", "serviceKey"} == set(schema["components"]["securitySchemes"])
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    codes = {code.code for code in ErrorCode}
    identifiers: list[str] = []
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            identifiers.append(operation["operationId"])
            refusals = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
            for status, answer in refusals.items():
                examples = answer["content"]["application/problem+json"]["examples"]
                assert set(examples) <= codes
                assert {example["value"]["status"] for example in examples.values()} == {int(status)}
            public = path.startswith(("/health", "/metrics", "/problems", "/assets"))
            assert ("security" in operation) is not public, path
            assert public or {"401", "422", "500", "503"} <= refusals.keys()
            if method == "post" and path.startswith("/generate"):
                name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert schema["components"]["schemas"][name]["example"]["task_id"]
    assert len(identifiers) == len(set(identifiers))
    docs = await gate.http.get("/docs")
    assert docs.status_code == 200
    assert "sandbox" in docs.text
    assert "script-src" in docs.headers["content-security-policy"]


async def test_codes_explain_themselves(gate: Gateway) -> None:
    refused = (await gate.http.get("/tasks")).json()
    meaning = (await gate.http.get(refused["type"])).json()
    assert (meaning["code"], meaning["status"]) == ("unauthenticated", 401)
    assert len((await gate.http.get("/problems")).json()) == len(ErrorCode)
    assert (await gate.http.get("/problems/nonsense")).status_code == 404


async def test_other_origins_need_to_be_named(database: str, tmp_path: Path) -> None:
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, idempotency-key",
    }
    async with gateway(settings_for(database, tmp_path, cors_origins=("https://app.example",))) as gate:
        allowed = await gate.http.options("/generate/text-to-image", headers=asked)
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-request-id" in allowed.headers
        refused = await gate.http.get("/tasks", headers={"Origin": "https://app.example"})
        assert refused.headers["access-control-allow-origin"] == "https://app.example"  # problems can be read, too
        assert "ETag" in refused.headers["access-control-expose-headers"]
        foreign = await gate.http.get("/tasks", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in foreign.headers
    async with gateway(settings_for(database, tmp_path)) as gate:
        assert "access-control-allow-origin" not in (await gate.http.get("/tasks", headers=asked)).headers


OPEN_POLL = "makeit3d_http_open_long_polls 1.0"
SERVER = """
import sys
from pathlib import Path
import uvicorn
from app.main import create_app
from tests.integration.factories import settings_for
from tests.integration.http_gateway import open_services
app = create_app(settings_for(sys.argv[1], Path(sys.argv[2])), open_services=open_services)
uvicorn.run(app, host="127.0.0.1", port=0, fd=int(sys.argv[3]), access_log=False)
"""


async def test_a_stop_signal_ends_waits_and_cuts_nothing(gate: Gateway, database: str, tmp_path: Path) -> None:
    await accept(gate.db, image_plan(gate.user_id, "task-stop-001"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        os.set_inheritable(listener.fileno(), True)
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SERVER,
            database,
            str(tmp_path / "second"),
            str(listener.fileno()),
            pass_fds=[listener.fileno()],
            stderr=asyncio.subprocess.DEVNULL,
        )
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with (
            httpx.AsyncClient(base_url=base_url, timeout=60, headers=gate.headers()) as http,
            http.stream("GET", "/events") as stream,
        ):
            lines = stream.aiter_lines()
            await anext(lines)  # it is open
            poll = asyncio.create_task(http.get("/tasks/task-stop-001/status", params={"wait": 30}))
            async with asyncio.timeout(20):
                while OPEN_POLL not in (await http.get("/metrics")).text:
                    await asyncio.sleep(0.02)
            server.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):  # less than the poll would wait
                assert (await poll).json()["status"] == "pending"
                rest = [line async for line in lines]
                assert not any(line.startswith("event:") for line in rest)
                await server.wait()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
