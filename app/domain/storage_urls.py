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
_OBJECTS = "/storage/v1/object/"
_ACCESS = frozenset({"public", "sign", "authenticated"})
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,100}")
# what Storage allows in a key (clients upload "IMG (1).jpg"), less "?", which clients do not agree on how to spell
_KEY = re.compile(r"[A-Za-z0-9_/!\-.*'() &$@=;:+,]{1,1024}")
_CONTENT = re.compile(r"/assets/([0-9a-fA-F-]{36})/content")
_CONTENT_KEY = re.compile(r"[A-Za-z0-9_-]{1,256}")
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
    link = _path_below(parts, public_base_url)
    if link is not None and (match := _CONTENT.fullmatch(link)):
        return _content_ref(match[1], parts.query)
    path = _path_below(parts, supabase_url)
    if path is None:
        if link is not None:
            raise _invalid("It is not one of our content links.")
        raise AppError(ErrorCode.INPUT_URL_FOREIGN, "Inputs come from this project's own storage.")
    if not path.startswith(_OBJECTS):
        raise _invalid("It is not the URL of an object in storage.")
    segments = path.removeprefix(_OBJECTS).split("/")
    if segments[0] in _ACCESS:
        segments = segments[1:]
    if len(segments) < 2:
        raise _invalid("It names no object.")
    decoded = [_decode(segment) for segment in segments]
    bucket, key = decoded[0], "/".join(decoded[1:])
    if not _BUCKET.fullmatch(bucket) or not _KEY.fullmatch(key):
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


def _path_below(parts: SplitResult, base_url: str) -> str | None:
    """The path of a URL below a base of ours, None when it is of another place."""
    base = urlsplit(base_url)
    if _site(parts) != _site(base):
        return None
    folder, path = base.path.rstrip("/"), parts.path or "/"
    return path.removeprefix(folder) if path.startswith(f"{folder}/") else None


def _site(url: SplitResult) -> tuple[str, str, int | None]:
    host = url.hostname or ""
    if not host.isascii():  # only a setting may be spelled so
        host = host.encode("idna").decode()
    return url.scheme, host, _DEFAULT_PORTS.get(url.scheme) if url.port is None else url.port


def _content_ref(file_id: str, query: str) -> ContentRef:
    keys = parse_qs(query).get("key", [])
    try:
        ref = ContentRef(UUID(file_id), keys[0])
    except (ValueError, IndexError):
        raise _invalid("The content link is incomplete.") from None
    if not _CONTENT_KEY.fullmatch(ref.key):
        raise _invalid("The content link has a damaged key.")
    return ref


def _invalid(detail: str) -> AppError:
    return AppError(ErrorCode.INPUT_URL_INVALID, f"The input URL can not be used. {detail}")
