"""What storage refuses for good, in words that name the limit and the place to raise it."""

from __future__ import annotations

from app.errors import ErrorCode
from app.storage.base import ContentTypeRefused, Limiter, ObjectTooLarge, StorageError


def lasting_refusal(error: StorageError, *, bucket: str, size: int, content_type: str) -> tuple[ErrorCode, str] | None:
    """The code of a refusal by size or type, and why, as the end of a sentence on a file of ``size`` bytes. None for
    every other error."""
    match error:
        case ObjectTooLarge(limiter=Limiter.BUCKET, max_bytes=int(limit)):
            why = f"bucket {bucket} takes at most {limit:,}: raise the file size limit of the bucket"
        case ObjectTooLarge(limiter=Limiter.PROJECT):
            why = "more than the project's upload limit: raise it in the Storage settings of the project"
        case ObjectTooLarge():
            why = f"more than storage takes: raise the file size limit of bucket {bucket} or of the project"
        case ContentTypeRefused():
            why = f"bucket {bucket} does not take {content_type}: add it to the allowed MIME types of the bucket"
            return ErrorCode.STORAGE_REFUSED_TYPE, f"{size:,} bytes, {why}"
        case _:
            return None
    return ErrorCode.STORAGE_REFUSED_SIZE, f"{size:,} bytes, {why}"
