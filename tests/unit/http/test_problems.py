"""Every refusal is a problem document, and what nobody expected tells nothing but an id."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from app import problems
from app.errors import AppError, ErrorCode
from app.middleware import BodyLimit, RequestContext
from app.schemas.generation import body_of
from app.schemas.problems import Problem
from app.task_types.text_to_image import TEXT_TO_IMAGE
from fastapi import FastAPI, Header, Response
from starlette.requests import Request
from starlette.responses import StreamingResponse

RAISED: dict[str, Exception] = {
    "app": AppError(ErrorCode.RATE_LIMITED, "Slow down.", retry_after=1.2, extra={"left": 0, "status": 200}),
    "denied": AppError(ErrorCode.UNAUTHENTICATED),
    "refused": ConnectionRefusedError("db at 10.0.0.1"),
    "slow": TimeoutError(),
    "gone": asyncpg.AdminShutdownError("terminating connection"),
    "closing": asyncpg.InterfaceError("pool is closing"),
    "bug": ValueError("password=hunter2"),
    "group": ExceptionGroup("many", [ValueError("x")]),
}


def small_app() -> FastAPI:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(BodyLimit, limit=2_000, limits={"/big": 4_000})
    app.add_middleware(RequestContext)

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise RAISED[name]

    async def body(body: Any) -> str:  # noqa: ANN401 - of the class below
        return body.task_id

    body.__annotations__["body"] = body_of(TEXT_TO_IMAGE)
    app.post("/body")(body)

    @app.post("/big")
    async def big(request: Request) -> int:
        return len(await request.body())

    @app.get("/number")
    async def number(n: int, x_user_id: str = Header(max_length=3)) -> str:
        return f"{n} {x_user_id}"

    @app.get("/broken")
    async def broken() -> Response:
        async def content() -> AsyncGenerator[bytes]:
            yield b"begun"
            raise ValueError("midway")

        return StreamingResponse(content())

    return app


@pytest.fixture
async def http() -> AsyncGenerator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(small_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def problem(answer: httpx.Response, code: ErrorCode) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    Problem.model_validate(body)
    assert (answer.status_code, body["status"], body["code"]) == (code.status, code.status, code.code)
    assert (body["title"], body["retryable"]) == (code.title, code.retry_helps)
    assert body["type"] == f"/problems/{code.code}"
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


async def test_an_error_of_ours(http: httpx.AsyncClient) -> None:
    answer = await http.get("/raise/app?token=abc")
    body = problem(answer, ErrorCode.RATE_LIMITED)
    assert (body["detail"], body["left"], body["instance"]) == ("Slow down.", 0, "/raise/app")
    assert answer.headers["retry-after"] == "2"
    denied = await http.get("/raise/denied")
    assert "detail" not in problem(denied, ErrorCode.UNAUTHENTICATED)
    assert denied.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("name", ["refused", "slow", "gone", "closing"])
async def test_an_unreachable_service_is_worth_a_repeat(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.get(f"/raise/{name}")
    problem(answer, ErrorCode.SERVICE_UNAVAILABLE)
    assert int(answer.headers["retry-after"]) > 0
    assert "10.0.0.1" not in answer.text


@pytest.mark.parametrize("name", ["bug", "group"])
async def test_what_nobody_expected_tells_nothing(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.get(f"/raise/{name}")
    assert "detail" not in problem(answer, ErrorCode.INTERNAL_ERROR)
    assert "hunter2" not in answer.text


async def test_an_answer_that_breaks_midway_breaks_the_connection(http: httpx.AsyncClient) -> None:
    with pytest.raises(ValueError, match="midway"):
        await http.get("/broken")


async def test_routes_and_methods(http: httpx.AsyncClient) -> None:
    problem(await http.get("/nowhere"), ErrorCode.NOT_FOUND)
    answer = await http.get("/body")
    problem(answer, ErrorCode.METHOD_NOT_ALLOWED)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("content", "content_type", "code"),
    [
        (b"{", "application/json", ErrorCode.MALFORMED_REQUEST),
        (b"\xff\xfe", "application/json", ErrorCode.MALFORMED_REQUEST),
        (b"[" * 1_900, "application/json", ErrorCode.MALFORMED_REQUEST),
        (b"task_id=1", "application/x-www-form-urlencoded", ErrorCode.UNSUPPORTED_MEDIA_TYPE),
        (b"{}", "text/plain", ErrorCode.UNSUPPORTED_MEDIA_TYPE),
        (b"[]", "application/json", ErrorCode.VALIDATION_ERROR),
        (b"", "application/json", ErrorCode.VALIDATION_ERROR),
        (b" " * 2_001, "application/json", ErrorCode.REQUEST_TOO_LARGE),
    ],
)
async def test_bodies(http: httpx.AsyncClient, content: bytes, content_type: str, code: ErrorCode) -> None:
    problem(await http.post("/body", content=content, headers={"Content-Type": content_type}), code)


async def test_faults_name_fields_and_repeat_nothing(http: httpx.AsyncClient) -> None:
    sent = {"task_id": "s3cret!", "prompt": " ", "n": 99, "nested": {"deep": 1}, "x" * 500: 1}
    body = problem(await http.post("/body", json=sent), ErrorCode.VALIDATION_ERROR)
    faults = {fault["field"]: fault["code"] for fault in body["errors"]}
    assert faults == {
        "task_id": "string_pattern_mismatch",
        "prompt": "string_too_short",
        "n": "less_than_equal",
        "nested": "extra_forbidden",
        "x" * 120: "extra_forbidden",
    }
    assert "s3cret" not in str(body)
    body = problem(await http.get("/number?n=x", headers={"X-User-Id": "long"}), ErrorCode.VALIDATION_ERROR)
    assert {fault["field"] for fault in body["errors"]} == {"n", "X-User-Id"}
    whole = {"task_id": "task-0001", "prompt": "a fox", "background": "transparent", "output_format": "jpeg"}
    body = problem(await http.post("/body", json=whole), ErrorCode.VALIDATION_ERROR)
    assert body["errors"] == [
        {"field": "body", "code": "value_error", "message": "A transparent background needs png or webp."}
    ]


async def test_bodies_are_capped_declared_or_not(http: httpx.AsyncClient) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1_000

    assert (await http.post("/big", content=chunks(4))).json() == 4_000
    problem(await http.post("/big", content=chunks(5)), ErrorCode.REQUEST_TOO_LARGE)
    refused = await http.post("/big", content=b"x" * 4_001)
    problem(refused, ErrorCode.REQUEST_TOO_LARGE)
    assert refused.headers["connection"] == "close"
    json = {"Content-Type": "application/json"}
    problem(await http.post("/body", content=chunks(3), headers=json), ErrorCode.REQUEST_TOO_LARGE)
    problem(await http.post("/body", content=b"{}", headers={"Content-Length": "-5"}), ErrorCode.REQUEST_TOO_LARGE)


async def test_request_ids_and_safe_headers(http: httpx.AsyncClient) -> None:
    for sent in ("abc-1.2_3", "x" * 128):
        assert (await http.get("/nowhere", headers={"X-Request-Id": sent})).headers["x-request-id"] == sent
    for sent in ("", "a b", "x" * 129, "{}"):
        given = (await http.get("/nowhere", headers={"X-Request-Id": sent})).headers["x-request-id"]
        assert len(given) == 36
    headers = (await http.get("/nowhere")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_every_code_has_a_document_of_its_own() -> None:
    documents = [problems.describe(code) for code in ErrorCode]
    assert len({document["type"] for document in documents}) == len(ErrorCode)
    assert all(400 <= document["status"] < 600 for document in documents)
