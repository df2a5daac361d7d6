"""What clients can ask for, with the schema of its parameters and what it costs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from app.deps import Caller, TaskTypeCatalogue
from app.errors import ErrorCode
from app.routers.tasks import etags_of
from app.schemas.problems import documented
from app.schemas.task_types import TaskTypeDescription, TaskTypeList
from app.task_types.catalogue import Document

router = APIRouter(
    prefix="/task-types",
    tags=["task types"],
    responses={304: {"description": "Nothing changed since the ETag in If-None-Match."}},
)

IfNoneMatch = Annotated[str | None, Header()]


@router.get("", name="list_task_types", response_model=TaskTypeList, responses=documented())
async def list_task_types(caller: Caller, catalogue: TaskTypeCatalogue, if_none_match: IfNoneMatch = None) -> Response:
    """Every task type."""
    del caller
    return _answer(catalogue.whole, if_none_match)


@router.get("/{name}", response_model=TaskTypeDescription, responses=documented(ErrorCode.NOT_FOUND))
async def task_type(
    name: Annotated[str, Path(description="Of a task type, or one of its aliases.")],
    caller: Caller,
    catalogue: TaskTypeCatalogue,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """One task type."""
    del caller
    return _answer(catalogue.one(name), if_none_match)


def _answer(document: Document, if_none_match: str | None) -> Response:
    headers = {"ETag": f'"{document.etag}"', "Cache-Control": "private, no-cache"}
    known = etags_of(if_none_match)
    if document.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(document.body, headers=headers, media_type="application/json")
