"""Results behind signed links, and the ways in which a content network spoils them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.providers.faults import Fault, Script
from app.sandbox.providers.knobs import KnobBoard
from app.sandbox.providers.ledger import Ledger
from app.sandbox.providers.links import Links
from app.sandbox.providers.strikes import TRIPO_RUBBISH, Streamed, hang_up, reset, strike

_BLOCK = 256 * 1024
_SLOW_BYTES_PER_SECOND = 200_000
_TYPES = {
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".stl": "model/stl",
    ".3mf": "model/3mf",
    ".zip": "application/zip",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
}


class TripoDownloads:
    def __init__(self, links: Links, script: Script, board: KnobBoard, ledger: Ledger, directory: Path) -> None:
        self._links = links
        self._script = script
        self._board = board
        self._ledger = ledger
        self._directory = directory

    async def download(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._directory / name
        fault = self._script.take("tripo.download", path=request.url.path)
        kind = "" if fault is None else fault.kind
        if not self._links.is_good("dl", name, request.url.query) or kind == "expired":
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        if not path.is_file() or kind == "missing":
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
        if fault is not None:
            answer = _spoilt(fault) or await strike(fault, request, TRIPO_RUBBISH)
            if answer is not None:
                return answer
        size = path.stat().st_size
        headers = {
            "content-length": str(size + 1000 if kind == "wrong_length" else size),
            "content-type": "text/plain" if kind == "wrong_type" else _TYPES.get(path.suffix, "application/zip"),
        }
        if request.method == "HEAD":
            return Response(b"", headers=headers)
        return Streamed(self._blocks(request, path, size, fault), headers=headers)

    async def _blocks(self, request: Request, path: Path, size: int, fault: Fault | None) -> AsyncGenerator[bytes]:
        kind = "" if fault is None else fault.kind
        pace = self._board.of(None).download_bytes_per_second
        if kind == "slow":
            pace = _SLOW_BYTES_PER_SECOND
        started, sent = time.monotonic(), 0
        with path.open("rb") as source:
            while block := source.read(_block_size(size, pace, fault)):
                if fault is not None and kind in ("cut", "stall") and sent + len(block) > size // 2:
                    await asyncio.sleep(0.05 if kind == "cut" else fault.seconds)
                    reset(request.scope)
                    return
                sent += len(block)
                yield block
                if pace is not None:
                    await asyncio.sleep(max(0.0, started + sent / pace - time.monotonic()))
        if kind == "wrong_length":
            await asyncio.sleep(0.05)
            hang_up(request.scope)
            return
        if not await request.is_disconnected():
            self._ledger.delivered(path.name.partition(".")[0])


def _block_size(size: int, pace: int | None, fault: Fault | None) -> int:
    if fault is not None:
        return max(1, min(_BLOCK, size // 4))
    return _BLOCK if pace is None else max(1, min(_BLOCK, pace // 10))


def _spoilt(fault: Fault) -> Response | None:
    headers: dict[str, Any] = dict(fault.headers)
    match fault.kind:
        case "redirect":
            target = {"location": "http://169.254.169.254/latest/meta-data"}
            return Response(status_code=302, headers={**target, **headers})
        case "html":
            return Response("<html><body>Please sign in</body></html>", media_type="text/html")
        case "huge":
            return _Promised(b"glTF\x02\x00\x00\x00", promised=10**12)
        case _:
            return None


class _Promised(Response):
    """A few bytes of a body that claims to be much longer; then nothing more comes."""

    def __init__(self, content: bytes, *, promised: int) -> None:
        super().__init__(content, headers={"content-length": str(promised), "content-type": "model/gltf-binary"})
