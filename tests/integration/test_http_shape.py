"""What holds for every route alike: slashes, HEAD, links, who is asked before a body is read, connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from app.domain.principal import Principal
from app.services.principals import PrincipalVerifier

from tests.integration.factories import accept, image_plan, settings_for
from tests.integration.http_gateway import Gateway, gateway
from tests.integration.test_http_assets import picture

TASK = "task-shape-01"
EVIL = "evil.example"
READS = (
    "/tasks",
    f"/tasks/{TASK}",
    f"/tasks/{TASK}/status",
    "/task-types",
    "/task-types/text-to-image",
    "/problems",
    "/problems/rate_limited",
    "/docs",
    "/health/live",
)
SECONDS = 20.0  # of a wait that has no end


@pytest.fixture
async def gate(database: str, tmp_path: Path) -> AsyncGenerator[Gateway]:
    settings = settings_for(database, tmp_path, connections_per_address=9)
    async with gateway(settings) as opened:
        await accept(opened.db, image_plan(opened.user_id, TASK))
        yield opened


async def test_a_trailing_slash_is_served(gate: Gateway) -> None:
    for path in (*READS, "/health/ready", "/metrics", "/openapi.json"):
        plain, slashed = [await gate.get(p, headers={"Host": EVIL}) for p in (path, f"{path}/")]
        assert (slashed.status_code, slashed.headers["content-type"]) == (
            plain.status_code,
            plain.headers["content-type"],
        ), path
        assert slashed.headers["content-security-policy"] == plain.headers["content-security-policy"]
    body = {"task_id": "task-shape-02", "prompt": "a fox"}
    answer = await gate.post("/generate/text-to-image/", json=body, headers={"Host": EVIL})
    assert answer.status_code == 202
    assert answer.headers["location"].startswith(gate.services.settings.public_base_url)
    content = picture(size=(1500, 1500))
    assert len(content) > 1024 * 1024  # of the limits, that of uploads holds
    assert (await gate.post("/uploads/", files={"file": content})).status_code == 201
    assert (await gate.get("/tasks//")).status_code == 404
    assert (await gate.get("/")).status_code == 404


async def test_the_host_of_a_client_is_in_no_answer(gate: Gateway) -> None:
    """Neither in a redirect nor in a link."""
    app_paths = (await gate.get("/openapi.json")).json()["paths"]
    for template, operations in app_paths.items():
        path = template.replace("{id}", TASK).replace("{code}", "x").replace("{name}", "x")
        for method in (*operations, "head"):
            if path == "/events":
                continue
            for end in ("", "/", "//"):
                answer = await gate.http.request(
                    method, f"{path}{end}", headers=gate.headers() | {"Host": EVIL, "X-Forwarded-Host": EVIL}
                )
                assert EVIL not in answer.text + str(answer.headers), (method, path)
                assert answer.status_code not in (301, 303, 307, 308), (method, path)


async def test_head_is_served_where_get_is(gate: Gateway) -> None:
    for path in READS:
        get, head = await gate.get(path), await gate.http.head(path, headers=gate.headers())
        assert (head.status_code, head.content) == (200, b""), path
        varying = ("x-request-id", "date")
        assert {n: v for n, v in head.headers.items() if n not in varying} == {
            n: v for n, v in get.headers.items() if n not in varying
        }
    assert (await gate.http.head("/tasks")).status_code == 401
    assert (await gate.http.head("/nowhere")).status_code == 404
    only_post = await gate.http.head("/generate/text-to-image")
    assert (only_post.status_code, only_post.headers["allow"]) == (405, "POST")
    only_get = await gate.post("/problems", json={})
    assert (only_get.status_code, only_get.headers["allow"]) == (405, "GET, HEAD")
    both = await gate.http.put("/tasks")
    assert (both.status_code, both.headers["allow"]) == (405, "GET, HEAD, POST")
    tag = (await gate.get(f"/tasks/{TASK}/status")).headers["etag"]
    same = await gate.http.head(f"/tasks/{TASK}/status", headers=gate.headers() | {"If-None-Match": tag})
    assert same.status_code == 304


async def test_head_of_a_stream_ends(gate: Gateway) -> None:
    async with asyncio.timeout(SECONDS):
        answer = await gate.http.head("/events", headers=gate.headers())
        assert (answer.status_code, answer.content) == (200, b"")
        while gate.services.events.streams:
            await asyncio.sleep(0.01)


async def talk(gate: Gateway, head: str, body: bytes = b"") -> str:
    """The answer to a request whose body does not come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.http.base_url.port)
    try:
        writer.write(f"{head}\r\nHost: x\r\n\r\n".encode() + body)
        async with asyncio.timeout(SECONDS):
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            return (answer + await reader.readexactly(int(length.split(b":")[1]))).decode()
    finally:
        writer.close()


BODIES = ["generate/text-to-image", "generate/refine-model", "tasks", "uploads", f"tasks/{TASK}/cancel"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("length", ["Content-Length: 1000000", "Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_who_sends_a_body_is_asked_before_it_is_read(gate: Gateway, path: str, length: str) -> None:
    head = f"POST /{path} HTTP/1.1\r\n{length}\r\nContent-Type: application/json"
    for wrong in ("X: y", "Authorization: Bearer garbage", "Apikey: wrong"):
        answer = await talk(gate, f"{head}\r\n{wrong}")
        assert answer.startswith("HTTP/1.1 401 "), answer
        assert "www-authenticate: bearer" in answer.lower()
        assert "application/problem+json" in answer
        # a body that is large, or of which nobody knows how large it is, costs the connection
        assert ("connection: close" in answer.lower()) == (length != "Content-Length: 1000")


async def test_a_path_that_is_not_there_reads_no_body(gate: Gateway) -> None:
    assert (await talk(gate, "POST /nowhere HTTP/1.1\r\nContent-Length: 1000000")).startswith("HTTP/1.1 404 ")


class Counting(PrincipalVerifier):
    verified = 0

    async def verify(self, **headers: Any) -> Principal:  # noqa: ANN401
        self.verified += 1
        return await super().verify(**headers)


async def test_a_caller_is_verified_once(gate: Gateway) -> None:
    async with httpx.AsyncClient() as http:
        gate.services.verifier = verifier = Counting(gate.services.settings, http)
        body = {"task_id": f"task-{uuid4()}", "prompt": "a fox"}
        assert (await gate.post("/generate/text-to-image", json=body)).status_code == 202
        assert verifier.verified == 1
        await gate.post("/generate/text-to-image", json={"prompt": "a fox"}, headers={"X-User-Id": "nobody"})
        assert verifier.verified == 2


async def test_an_address_has_so_many_connections(gate: Gateway) -> None:
    port = gate.http.base_url.port
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(9)]
    async with asyncio.timeout(SECONDS):
        answer = b""
        while not answer:  # until the ninth is seen
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answer = await reader.read()
            writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"application/problem+json" in head
    assert b'"code":"too_many_connections"' in content
    for _, writer in idle:
        writer.close()
    async with asyncio.timeout(SECONDS):
        while (await gate.get("/health/live")).status_code != 200:  # until the server has seen them go
            await asyncio.sleep(0.01)


async def test_connections_that_ask_for_another_protocol_are_counted_out(gate: Gateway) -> None:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    upgrade = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
    for _ in range(12):
        await talk(gate, f"GET /nowhere HTTP/1.1\r\n{upgrade}")
        async with asyncio.timeout(SECONDS):
            while (await gate.get("/health/live", headers={"Connection": "close"})).status_code != 200:
                await asyncio.sleep(0.01)
