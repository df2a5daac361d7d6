"""Uploaded and fetched files: rows in the store, bytes beside it."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

import httpx

from app.sandbox.providers.accounts import Account
from app.sandbox.providers.store import Store
from app.sandbox.providers.tripo_refusals import bad_parameter

IMAGE_BYTES = 20 * 1024 * 1024
MODEL_BYTES = 150 * 1024 * 1024
_HEAD = 512

FileKind = Literal["picture", "model", "unknown"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    path: Path
    content_type: str
    created_at: float
    account: str


def sniff(head: bytes) -> str:
    """The media type by the first bytes; ``application/octet-stream`` for what is neither picture nor model."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith(b"glTF"):
        return "model/gltf-binary"
    if head.startswith(b"solid "):
        return "model/stl"
    if head.lstrip()[:2] in (b"v ", b"# ", b"o ", b"g ", b"mt"):
        return "model/obj"
    return "application/octet-stream"


def kind_of(content_type: str) -> FileKind:
    family = content_type.partition("/")[0]
    return "picture" if family == "image" else "model" if family == "model" else "unknown"


class Files:
    def __init__(self, store: Store, directory: Path, public_url: str) -> None:
        self._store = store
        self._directory = directory
        self._public_url = public_url

    def open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)

    def new_token(self) -> str:
        return f"file_{uuid4()}"

    def path(self, token: str) -> Path:
        """Where the bytes of a token made by ``new_token`` belong."""
        return self._directory / token

    def add(self, token: str, account: str, content_type: str) -> None:
        """Make a token known whose bytes lie at its path."""
        self._insert(token, account, content_type, "stored")

    def expect(self, token: str, account: str, content_type: str) -> None:
        """Make a token known whose bytes will be put."""
        self._insert(token, account, content_type, "awaited")

    def arrived(self, token: str, content_type: str) -> None:
        with self._store.transaction() as db:
            db.execute("update files set state = 'stored', content_type = ? where token = ?", (content_type, token))

    def is_expected(self, token: str) -> bool:
        row = self._store.row("select state from files where token = ?", (token,))
        return row is not None and row["state"] == "awaited"

    def one(self, token: str) -> StoredFile | None:
        """A file whose bytes are there."""
        row = self._store.row("select * from files where token = ? and state = 'stored'", (token,))
        if row is None:
            return None
        return StoredFile(self.path(token), row["content_type"], row["created_at"], row["account"])

    def _insert(self, token: str, account: str, content_type: str, state: str) -> None:
        with self._store.transaction() as db:
            db.execute("insert into files values (?, ?, ?, ?, ?)", (token, account, content_type, time.time(), state))

    async def fetch(self, url: str, account: Account) -> str:
        """The token of what a URL answers. Only the sandbox's own addresses are fetched. Raises TripoRefusal."""
        if not url.startswith(f"{self._public_url}/"):
            raise bad_parameter("the URL cannot be reached from the sandbox, which fetches only from itself")
        token = self.new_token()
        part = self.path(f"{token}.part")
        try:
            async with (
                httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=30) as client,
                client.stream("GET", url) as answer,
            ):
                if answer.status_code != 200:
                    raise bad_parameter(f"the URL answers {answer.status_code}")
                size = 0
                with part.open("wb") as sink:
                    async for block in answer.aiter_bytes():
                        size += len(block)
                        if size > MODEL_BYTES:
                            raise bad_parameter("the URL answers too many bytes")
                        sink.write(block)
        except httpx.HTTPError as error:
            part.unlink(missing_ok=True)
            raise bad_parameter(f"the URL cannot be read ({type(error).__name__})") from None
        part.replace(self.path(token))
        self.add(token, account.id, sniff_file(self.path(token)))
        return token


def sniff_file(path: Path) -> str:
    with path.open("rb") as source:
        head = source.read(_HEAD)
    found = sniff(head)
    if found == "application/octet-stream" and len(head) >= 84:
        # binary STL has no magic, but its length follows from its count of triangles
        (count,) = struct.unpack_from("<I", head, 80)
        return "model/stl" if path.stat().st_size == 84 + 50 * count else found
    return found
