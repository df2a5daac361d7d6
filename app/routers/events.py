"""``GET /events``: server-sent events of everything that is the caller's, replayed from a cursor and then live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Header, Query
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

from app.deps import Caller, Services
from app.domain.cursors import Cursor
from app.domain.task_ids import TASK_ID_PATTERN
from app.errors import AppError, ErrorCode
from app.observability import OPEN_STREAMS
from app.schemas.problems import documented
from app.services.event_stream import EventStream

log = structlog.get_logger(__name__)

_PING_SECONDS = 15
_SEND_SECONDS = 30.0  # a client that reads nothing for so long is gone
_STREAM_SECONDS = 1800.0  # at most; never longer than the caller's token
_RETRY_MS = 2000

router = APIRouter(tags=["events"])


class _EventStreamResponse(EventSourceResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("event_stream_client_too_slow")  # it resumes from its cursor


@router.get(
    "/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Events `task_update`, `job_update`, `item_update`, `asset_update`; each id is a cursor."
            ' When the token expires, the stream ends with `stream_end` and the data `{"code":"token_expired"}`:'
            " connect again with a fresh token and the last id.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'id: 771-42\nevent: task_update\ndata: {"task_id":"6f9a3c1e","status":"running"}\n\n',
                }
            },
        },
        **documented(ErrorCode.EVENT_CURSOR_INVALID, ErrorCode.RATE_LIMITED),
    },
)
async def event_stream(
    caller: Caller,
    services: Services,
    task_id: Annotated[str | None, Query(pattern=TASK_ID_PATTERN, description="Only events of this task.")] = None,
    last_event_id: Annotated[str | None, Header(description="The id of the event seen last.")] = None,
    last_event_id_query: Annotated[
        str | None, Query(alias="last_event_id", description="The same, where headers can not be set.")
    ] = None,
) -> EventSourceResponse:
    """Live changes. Without a cursor the stream begins now; with one, nothing after it is left out."""
    left = caller.seconds_left(time.time())
    if left <= 0:
        raise AppError(ErrorCode.TOKEN_EXPIRED)  # it would end at once
    cursor = await services.events.cursor(caller.user_id, last_event_id or last_event_id_query or None)
    return _EventStreamResponse(
        _messages(services.events, caller.user_id, cursor, task_id, left),
        ping=_PING_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
        sep="\n",
        send_timeout=_SEND_SECONDS,
        headers={"Cache-Control": "no-cache"},
    )


async def _messages(
    events: EventStream, user_id: UUID, cursor: Cursor, task_id: str | None, token_seconds: float
) -> AsyncGenerator[ServerSentEvent]:
    clock = asyncio.get_running_loop().time
    token_end, seconds = clock() + token_seconds, min(token_seconds, _STREAM_SECONDS)
    with OPEN_STREAMS.track_inprogress():
        # an id without data is remembered and not shown: whoever loses the line now can resume from here
        yield ServerSentEvent(id=str(cursor), retry=_RETRY_MS, comment="connected", sep="\n")
        async with aclosing(events.stream(user_id, cursor, task_id=task_id, seconds=seconds)) as stream:
            async for event in stream:
                data = orjson.dumps(event.payload).decode()
                yield ServerSentEvent(data, event=event.type, id=str(event.cursor), sep="\n")
        if clock() >= token_end:  # without an id: the client resumes after the last event
            end = orjson.dumps({"code": ErrorCode.TOKEN_EXPIRED.code}).decode()
            yield ServerSentEvent(end, event="stream_end", sep="\n")
