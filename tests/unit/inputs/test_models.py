from __future__ import annotations

from pathlib import Path

import pytest
from app.domain.pictures import check_model
from app.errors import AppError, ErrorCode

from tests.unit.inputs.pictures import glb


def refusal(path: Path, content: bytes, *, max_bytes: int = 10_000) -> ErrorCode:
    path.write_bytes(content)
    with pytest.raises(AppError) as caught:
        check_model(path, max_bytes)
    return caught.value.error


def test_a_whole_glb(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(glb())
    check_model(tmp_path / "a", 10_000)


@pytest.mark.parametrize(
    "content",
    [
        glb()[:-1],
        glb() + b"\x00",
        glb()[:11],
        glb()[:12],
        glb(version=1),
        glb(kind=b"BIN\x00"),
        b"gltf" + glb()[4:],
        b"glTF\x02\x00\x00\x00\x0c\x00\x00\x00",
        b"Kaydara FBX Binary  \x00",
        b"solid cube\n",
        b"<html>",
    ],
)
def test_no_model(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path / "a", content) is ErrorCode.INPUT_NOT_MODEL


def test_a_first_chunk_longer_than_the_file(tmp_path: Path) -> None:
    content = bytearray(glb())
    content[12:16] = (len(content)).to_bytes(4, "little")
    assert refusal(tmp_path / "a", bytes(content)) is ErrorCode.INPUT_NOT_MODEL


def test_empty_and_too_large(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a", b"") is ErrorCode.INPUT_EMPTY
    assert refusal(tmp_path / "a", glb(), max_bytes=20) is ErrorCode.INPUT_TOO_LARGE
