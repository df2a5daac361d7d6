"""From a URL that a client sent to a place in our storage. The URL is parsed, never fetched.

Accepted are public, signed and authenticated Storage URLs of the configured project, and our own content links.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote_to_bytes, urlsplit
from uuid import UUID

from app.errors import AppError, ErrorCode

_MAX_LENGTH = 2048
_ACCESS = frozenset({"public", "sign", "authenticated"})
_BUCKET = re.compile(r"^[A-Za-z0-9._-]{1,100}$")
# what Storage allows in a key, less what has a meaning in URLs
_KEY = re.compile(r"^[A-Za-z0-9_!.*'()\-&$@=;:+, ]+(/[A-Za-z0-9_!.*'()\-&$@=;:+, ]+)*$")
_CONTENT = re.compile(r"^/assets/([0-9a-fA-F-]{36})/content$")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class StorageRef:
    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class ContentRef:
    """Our own never-expiring link: a file of the manifest and its key."""

    file_id: UUID
    key: str


def parse_storage_url(
    url: str, *, supabase_url: str, public_base_url: str, allowed_buckets: Collection[str]
) -> StorageRef | ContentRef:
    """Raises AppError: INPUT_URL_INVALID, INPUT_URL_FOREIGN, INPUT_BUCKET_NOT_ALLOWED."""
    parts = _split(url)
    ours = urlsplit(public_base_url)
    if _same_site(parts, ours) and (match := _CONTENT.match(_below(parts.path, ours.path))):
        return _content_ref(match[1], parts.query)
    project = urlsplit(supabase_url)
    if not _same_site(parts, project):
        raise AppError(ErrorCode.INPUT_URL_FOREIGN, "Inputs come from this project's own storage.")
    prefix = f"{project.path.rstrip('/')}/storage/v1/object/"
    if not parts.path.startswith(prefix):
        raise _invalid("It is not the URL of an object in storage.")
    segments = parts.path[len(prefix) :].split("/")
    if segments[0] in _ACCESS:
        segments = segments[1:]
    if len(segments) < 2:
        raise _invalid("It names no object.")
    decoded = [_decode(segment) for segment in segments]
    bucket, key = decoded[0], "/".join(decoded[1:])
    if not _BUCKET.match(bucket) or not _KEY.match(key):
        raise _invalid("It has characters that no object name has.")
    if bucket not in allowed_buckets:
        raise AppError(ErrorCode.INPUT_BUCKET_NOT_ALLOWED, "Inputs may not come from this bucket.")
    return StorageRef(bucket, key)


def _split(url: str) -> SplitResult:
    if len(url) > _MAX_LENGTH:
        raise _invalid(f"It is longer than {_MAX_LENGTH} characters.")
    if not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        raise _invalid("It has characters that belong into no URL.")
    try:
        parts = urlsplit(url)
        _ = parts.port  # a bad port is only noticed here
    except ValueError:
        raise _invalid("It can not be parsed.") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise _invalid("It is not an http or https URL.")
    if parts.username is not None or parts.password is not None or parts.fragment or "#" in url:
        raise _invalid("It has parts that a storage URL has not.")
    return parts


def _decode(segment: str) -> str:
    """One path segment, decoded once. Whatever could be decoded again, or walk, is refused."""
    text = unquote_to_bytes(segment).decode("utf-8", "replace")
    if text in ("", ".", "..") or "/" in text or "\\" in text or "%" in text:
        raise _invalid("Its path does not name one object.")
    return text


def _same_site(parts: SplitResult, ours: SplitResult) -> bool:
    def site(url: SplitResult) -> tuple[str, str | None, int | None]:
        return url.scheme, url.hostname, url.port or _DEFAULT_PORTS.get(url.scheme)

    return site(parts) == site(ours)


def _below(path: str, base: str) -> str:
    base = base.rstrip("/")
    return path[len(base) :] if path.startswith(base) else path


def _content_ref(file_id: str, query: str) -> ContentRef:
    keys = parse_qs(query).get("key", [])
    try:
        return ContentRef(UUID(file_id), keys[0])
    except (ValueError, IndexError):
        raise _invalid("The content link is incomplete.") from None


def _invalid(detail: str) -> AppError:
    return AppError(ErrorCode.INPUT_URL_INVALID, f"The input URL can not be used. {detail}")
