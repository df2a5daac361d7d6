"""OpenAI's routes: images, the list of models, and the headers that every reply has."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.providers.accounts import Account, KeyRing
from app.sandbox.providers.knobs import KnobBoard
from app.sandbox.providers.openai_calls import Asked, ImageCalls
from app.sandbox.providers.openai_faults import bad_key
from app.sandbox.providers.openai_strict import MODELS, OpenAIRefusal, no_such_model

_TOKENS_PER_REQUEST = 10_000
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class OpenAIRoutes:
    def __init__(self, keys: KeyRing, board: KnobBoard, calls: ImageCalls) -> None:
        self._keys = keys
        self._board = board
        self._calls = calls

    def routes(self) -> list[Route]:
        return [
            Route("/images/generations", self._answering(self._calls.generate), methods=["POST"]),
            Route("/images/edits", self._answering(self._calls.edit), methods=["POST"]),
            Route("/models", self._answering(_models), methods=["GET"]),
            Route("/models/{model}", self._answering(_model), methods=["GET"]),
            Route("/{path:path}", self._answering(_nowhere), methods=_METHODS),
        ]

    def _answering(self, handler: Callable[[Asked], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            started = time.monotonic()
            request_id = f"req_{uuid4().hex}"
            authorization = request.headers.get("authorization", "")
            account = self._keys.account(authorization)
            try:
                if account is None:
                    raise bad_key(authorization.partition(" ")[2])
                response = await handler(Asked(request, account, request_id))
            except OpenAIRefusal as refusal:
                response = refusal.response()
            response.headers["x-request-id"] = request_id
            response.headers["openai-processing-ms"] = str(int((time.monotonic() - started) * 1000))
            self._tell_limits(response, account)
            return response

        return answer

    def _tell_limits(self, response: Response, account: Account | None) -> None:
        limit = self._board.of(account.id if account else None).openai_per_minute
        used = self._calls.rates.used("images", account.id) if account else 0
        for kind, scale in (("requests", 1), ("tokens", _TOKENS_PER_REQUEST)):
            response.headers[f"x-ratelimit-limit-{kind}"] = str(limit * scale)
            response.headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, limit - used) * scale)
            response.headers[f"x-ratelimit-reset-{kind}"] = f"{math.ceil(60_000 / limit)}ms"


async def _models(asked: Asked) -> Response:
    del asked
    return JSONResponse({"object": "list", "data": [_told(name) for name in MODELS]})


async def _model(asked: Asked) -> Response:
    name = asked.request.path_params["model"]
    if name not in MODELS:
        raise no_such_model(name)
    return JSONResponse(_told(name))


async def _nowhere(asked: Asked) -> Response:
    message = f"Invalid URL ({asked.request.method} {asked.request.url.path})"
    raise OpenAIRefusal(404, "invalid_request_error", None, message)


def _told(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_776_729_600, "owned_by": "sandbox"}
