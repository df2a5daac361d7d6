"""A form is received in steps that do not grow with what its sender puts between the parts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from app.errors import AppError, ErrorCode
from app.routers.multipart import FORM_BYTES, FormReceiver

BOUNDARY = b"between"
DELIMITER = b"\r\n--" + BOUNDARY
HEAD = DELIMITER[2:] + b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = DELIMITER + b"--\r\n"
CHUNK = 10_000


class Sender:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self.sent = 0

    async def chunks(self) -> AsyncGenerator[bytes]:
        for start in range(0, len(self._body), CHUNK):
            self.sent += 1
            yield self._body[start : start + CHUNK]


async def _room(size: int) -> None:
    del size


async def receive(sender: Sender, target: Path) -> bytes:
    receiver = FormReceiver(target, field_names=frozenset(), limit_of=lambda _head: 10**9, room=_room)
    form = await receiver.receive(f"multipart/form-data; boundary={BOUNDARY.decode()}", sender.chunks())
    return form.file.read_bytes()


@pytest.mark.parametrize(
    "body",
    [
        HEAD + (DELIMITER + b"x") * 100_000 + END,
        HEAD + (DELIMITER + b"\rx") * 100_000 + END,
        HEAD + (DELIMITER + b"-x") * 100_000 + END,
        HEAD + b"glTF" + DELIMITER + b" " * 1_000_000 + b"\r\n" + END,
        HEAD + b"glTF" + END + b"\r\n" * 500_000,
    ],
    ids=["delimiters", "delimiters and returns", "delimiters and dashes", "padding", "behind the end"],
)
async def test_what_keeps_the_parser_busy_is_refused_early(body: bytes, tmp_path: Path) -> None:
    sender = Sender(body)
    with pytest.raises(AppError) as refused:
        await receive(sender, tmp_path / "upload")
    assert refused.value.error is ErrorCode.MALFORMED_REQUEST
    assert sender.sent <= FORM_BYTES // CHUNK + 2


@pytest.mark.parametrize("cut", range(len(DELIMITER) + 1))
async def test_beginnings_of_delimiters_belong_to_the_file(cut: int, tmp_path: Path) -> None:
    # at all places of a chunk's end, too
    content = b"glTF" + b"x" * (CHUNK - len(HEAD) - 4 - cut) + DELIMITER[:-1] + DELIMITER[:-1] * 30_000
    assert await receive(Sender(HEAD + content + END), tmp_path / "upload") == content
