"""What bytes are, by their first bytes. Nobody's word is taken for it: providers answer JPEG where PNG was asked,
FBX where GLB was asked, and HTML where anything was asked."""

from __future__ import annotations

from collections.abc import Callable

HEAD_BYTES = 64  # how much of a file ``sniff`` needs

PNG = "image/png"
JPEG = "image/jpeg"
WEBP = "image/webp"
GLB = "model/gltf-binary"

IMAGE_TYPES = frozenset({PNG, JPEG, WEBP})

_EXTENSIONS = {PNG: "png", JPEG: "jpg", WEBP: "webp", GLB: "glb"}

_GLB_HEADER_BYTES = 12
_GLB_VERSION = 2


def _starts(magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


_SIGNS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    (PNG, _starts(b"\x89PNG\r\n\x1a\n")),
    (JPEG, _starts(b"\xff\xd8\xff")),
    (WEBP, lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP"),
    (GLB, _starts(b"glTF")),
)

# formats that providers are known to send and that nobody asked for: a repeat would bring the same
_UNWANTED: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("FBX", _starts(b"Kaydara FBX Binary")),
    ("GIF", _starts(b"GIF8")),
    ("ZIP", _starts(b"PK\x03\x04")),
)


def sniff(head: bytes) -> str | None:
    """Content type of a PNG, JPEG, WebP or GLB file from its first bytes, None for everything else."""
    return next((content_type for content_type, matches in _SIGNS if matches(head)), None)


def unwanted_format(head: bytes) -> str | None:
    """The name of a known format that is not one of ours."""
    return next((name for name, matches in _UNWANTED if matches(head)), None)


def extension_of(content_type: str) -> str:
    """File extension without a dot for a type that ``sniff`` answers. Raises KeyError for any other."""
    return _EXTENSIONS[content_type]


def glb_declared_bytes(head: bytes) -> int | None:
    """Length in bytes that the header of a glTF 2 binary declares for the whole file; None when it is not one."""
    if len(head) < _GLB_HEADER_BYTES or sniff(head) != GLB:
        return None
    version, length = int.from_bytes(head[4:8], "little"), int.from_bytes(head[8:12], "little")
    return length if version == _GLB_VERSION else None
