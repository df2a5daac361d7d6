"""The constants that the gateway is compared with, served by uvicorn with the gateway's own options.

``python -m bench.constants raw|framework PORT`` reads from standard input what to answer, as JSON: ``status`` and
``accepted`` are documents that the gateway answered, ``dsn`` its database.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import uvicorn
from app.schemas.generation import OfTask, TaskAccepted, body_of
from app.schemas.tasks import TaskStatus
from app.server import BoundedHead
from app.task_types.text_to_model import TEXT_TO_MODEL
from fastapi import FastAPI, Request


def raw_asgi(document: dict[str, Any]) -> Any:  # noqa: ANN401 - an ASGI application
    """Ready bytes, straight from the server's callback: what the server itself allows."""
    body = orjson.dumps(document)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"etag", b'"0123456789abcdef0123456789abcdef"'),
        (b"cache-control", b"private, no-cache"),
    ]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    end = {"type": "http.response.body", "body": body}

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401
        if scope["type"] == "http":
            await send(start)
            await send(end)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return app


def framework(status: dict[str, Any], accepted: dict[str, Any], dsn: str) -> FastAPI:
    """FastAPI with the gateway's response models and nothing behind them."""
    constant, answer = TaskStatus.model_validate(status), TaskAccepted.model_validate(accepted)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=10) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan, telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.get("/constant/{id}")
    async def read_constant(id: str) -> TaskStatus:  # noqa: A002 - as the gateway's
        del id
        return constant

    @app.get("/row/{id}")
    async def read_row(id: str, request: Request) -> TaskStatus:  # noqa: A002
        row = await request.app.state.pool.fetchrow("select * from makeit3d.tasks where id = $1", id)
        return constant.model_copy(update={"task_id": row["id"]})

    async def post_constant(body: OfTask) -> TaskAccepted:
        return answer.model_copy(update={"task_id": body.task_id})

    post_constant.__annotations__["body"] = body_of(TEXT_TO_MODEL)
    app.post("/constant", status_code=202)(post_constant)
    del read_constant, read_row
    return app


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    told = json.load(sys.stdin)
    app = raw_asgi(told["status"]) if kind == "raw" else framework(**told)
    uvicorn.run(
        app,
        http=BoundedHead,
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
