"""``GET /assets/{id}/content``: the never-expiring link for private buckets. The key in it is the permission."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from app.deps import Services
from app.errors import AppError, ErrorCode
from app.schemas.problems import documented

_CACHE_SECONDS = 60  # well below the life of the signed URL

router = APIRouter(tags=["assets"])


@router.get(
    "/assets/{id}/content",
    status_code=302,
    response_class=Response,
    responses={
        302: {"description": "The file, under a signed URL that lives for minutes."},
        **documented(ErrorCode.NOT_FOUND, ErrorCode.STORAGE_UNAVAILABLE, anonymous=True),
    },
)
async def asset_content(
    id: str,  # noqa: A002 - the contract's name
    services: Services,
    key: Annotated[str, Query(description="The unguessable part of the link.")] = "",
) -> Response:
    """Where the file is just now."""
    try:
        file_id = UUID(id)
    except ValueError:
        raise AppError(ErrorCode.NOT_FOUND) from None
    url = await services.content.signed_url(file_id, key)
    headers = {"Location": url, "Cache-Control": f"private, max-age={_CACHE_SECONDS}"}
    return Response(status_code=302, headers=headers)
