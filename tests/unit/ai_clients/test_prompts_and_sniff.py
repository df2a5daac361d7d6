"""What is said to providers, and what their bytes are."""

from __future__ import annotations

import struct

import pytest
from app.domain.operations import Operation
from app.domain.prompts import compose
from app.domain.sniff import extension_of, glb_declared_bytes, sniff, unwanted_format

from tests.unit.ai_clients.support import picture_bytes


@pytest.mark.parametrize(
    ("operation", "prompt", "style", "text"),
    [
        (Operation.TEXT_TO_IMAGE, "a fox", None, "a fox"),
        (Operation.TEXT_TO_IMAGE, " a fox. ", "watercolor", "a fox. Style: watercolor"),
        (Operation.TEXT_TO_MODEL, "a fox", "clay", "a fox. Style: clay"),
        (Operation.IMAGE_TO_IMAGE, "make it red!", "ink", "make it red! Style: ink"),
        (Operation.IMAGE_TO_IMAGE, "", "ink", "Redraw this picture. Style: ink"),
        (Operation.IMAGE_TO_MODEL, "", None, ""),
        (Operation.REFINE_MODEL, "", "oak", "Style: oak"),
        (Operation.REFINE_MODEL, "", "", ""),
        (Operation.TEXT_TO_IMAGE, "a\x00fox\x1b[31m\nred", None, "a fox [31m\nred"),
    ],
)
def test_compose(operation: Operation, prompt: str, style: str | None, text: str) -> None:
    assert compose(operation, prompt, style) == text


def test_a_sketch_is_always_explained() -> None:
    bare, told = compose(Operation.SKETCH_TO_MODEL, "", None), compose(Operation.SKETCH_TO_MODEL, "a chair", "oak")
    assert "sketch" in bare
    assert told.startswith(bare)
    assert told.endswith("It shows: a chair. Style: oak")


@pytest.mark.parametrize(
    ("head", "content_type"),
    [
        (picture_bytes("PNG"), "image/png"),
        (picture_bytes("JPEG"), "image/jpeg"),
        (picture_bytes("WEBP"), "image/webp"),
        (b"glTF\x02\0\0\0", "model/gltf-binary"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"<html>", None),
        (b"", None),
        (b"\x89PN", None),
    ],
)
def test_sniff(head: bytes, content_type: str | None) -> None:
    assert sniff(head) == content_type


def test_names_of_formats() -> None:
    assert [extension_of(kind) for kind in ("image/png", "image/jpeg", "image/webp", "model/gltf-binary")] == [
        "png",
        "jpg",
        "webp",
        "glb",
    ]
    assert unwanted_format(b"Kaydara FBX Binary  ") == "FBX"
    assert unwanted_format(b"glTF") is None
    assert glb_declared_bytes(struct.pack("<4sII", b"glTF", 2, 99)) == 99
    assert glb_declared_bytes(struct.pack("<4sII", b"glTF", 1, 99)) is None
    assert glb_declared_bytes(b"glTF") is None
