"""Reading and canceling tasks."""

from __future__ import annotations

import base64
import binascii
import math
import time
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from app.deps import Caller, Services
from app.domain.task_ids import is_task_id
from app.domain.tasks import TaskRow
from app.errors import AppError, ErrorCode
from app.observability import OPEN_POLLS
from app.schemas.problems import documented
from app.schemas.tasks import Task, TaskDetail, TaskPage, TaskRequest, TaskStatus, TaskWord
from app.services.task_status import StatusDocument

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.get(
    "/{id}/status",
    response_model=TaskStatus,
    responses={
        304: {"description": "Nothing changed since the ETag in If-None-Match."},
        **documented(ErrorCode.TASK_NOT_FOUND),
    },
)
async def task_status(
    id: str,  # noqa: A002 - the contract's name
    request: Request,
    caller: Caller,
    services: Services,
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=30,
            description="Seconds to wait for a change (from If-None-Match, or from now). Where 64 requests of the user"
            " wait already, the answer comes at once.",
        ),
    ] = 0,
    service: Annotated[str | None, Query(deprecated=True, description="Accepted for older clients; ignored.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """How it stands: of the newest request of a task, or of one job."""
    del service
    known = etags_of(if_none_match)
    failure: Exception | None = getattr(request.state, "poll_failure", None)
    if failure is not None:
        raise failure  # it was tried before the framework was asked
    wait = min(wait, caller.seconds_left(time.time()))
    if wait > 0:
        one = next(iter(known)) if len(known) == 1 else None
        with OPEN_POLLS.track_inprogress():
            document = await services.status.wait(id, caller.user_id, seconds=wait, known_etag=one)
    else:
        document = await services.status.document(id, caller.user_id)
    if document.etag in known or "*" in known:
        return Response(status_code=304, headers=headers_of(document))
    return _answer(document)


@router.post(
    "/{id}/cancel",
    response_model=TaskStatus,
    responses=documented(ErrorCode.TASK_NOT_FOUND, ErrorCode.TASK_NOT_CANCELABLE),
)
async def cancel_task(id: str, caller: Caller, services: Services) -> Response:  # noqa: A002
    """End all that is unfinished, at once. What was paid stays visible. Canceling again changes nothing."""
    await services.cancellation.cancel(id, caller.user_id)
    return _answer(await services.status.document(id, caller.user_id))


@router.get("", responses=documented())
async def list_tasks(
    caller: Caller,
    services: Services,
    status: TaskWord | None = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> TaskPage:
    """The caller's tasks, newest first."""
    before = None if cursor is None else _parse_cursor(cursor)
    page, more = await services.tasks.page(caller.user_id, status=status, before=before, limit=limit)
    return TaskPage(
        tasks=[Task(**_task(row, services)) for row in page],
        next_cursor=_cursor(page[-1]) if more else None,
    )


@router.get("/{id}", responses=documented(ErrorCode.TASK_NOT_FOUND))
async def task_detail(id: str, caller: Caller, services: Services) -> TaskDetail:  # noqa: A002
    """A task with everything that was asked for under its id."""
    row, requests = await services.tasks.detail(id, caller.user_id)
    return TaskDetail(**_task(row, services), requests=[TaskRequest.model_validate(request) for request in requests])


def _answer(document: StatusDocument) -> Response:
    return Response(document.body, headers=headers_of(document), media_type="application/json")


def headers_of(document: StatusDocument) -> dict[str, str]:
    headers = {"ETag": f'"{document.etag}"', "Cache-Control": "private, no-cache"}
    if document.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(document.retry_after)))
    return headers


def etags_of(if_none_match: str | None) -> frozenset[str]:
    """The tags of the header, as weak comparison sees them."""
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in (if_none_match or "").split(","))
    return frozenset(tag for tag in tags if tag)


def _task(row: TaskRow, services: Services) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": row.type,
        "label": row.label,
        "status": row.status,
        "status_url": f"{services.settings.public_base_url}/tasks/{row.id}/status",
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "finished_at": row.finished_at,
    }


def _cursor(row: TaskRow) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at.isoformat()} {row.id}".encode()).decode().rstrip("=")


def _parse_cursor(text: str) -> tuple[datetime, str]:
    try:
        moment, _, task_id = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").partition(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None or not is_task_id(task_id):
            raise ValueError
        created_at = created_at.astimezone(UTC)  # at the ends of the calendar not every zone's moment has one
    except (ValueError, OverflowError, binascii.Error):
        fault = {"field": "cursor", "code": "cursor_invalid", "message": "Send next_cursor of a page as it was."}
        raise AppError(ErrorCode.VALIDATION_ERROR, extra={"errors": [fault]}) from None
    return created_at, task_id
