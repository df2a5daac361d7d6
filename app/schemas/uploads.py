"""What an upload becomes."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.domain.task_ids import TASK_ID_PATTERN


class UploadedAsset(BaseModel):
    """The row of input_assets."""

    id: UUID
    task_id: str
    input_asset_type: str
    asset_url: str = Field(description="Send it as an input URL. It does not expire.")
    status: Literal["complete"]
    content_type: str
    size: int = Field(description="Bytes.")
    sha256: str
    width: int | None = Field(description="Pixels; null for models.")
    height: int | None


# a streamed body has no model, so its form is written down
MULTIPART_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP or GLB."},
                    "task_id": {"type": "string", "pattern": TASK_ID_PATTERN},
                    "input_asset_type": {
                        "type": "string",
                        "pattern": r"^[a-z][a-z0-9_]{0,63}$",
                        "example": "uploaded_photo",
                    },
                },
            }
        }
    },
}
