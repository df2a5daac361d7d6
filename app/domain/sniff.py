"""What bytes are, by their first bytes. Nobody's word is taken for it: providers answer JPEG where PNG was asked,
FBX where GLB was asked, and HTML where anything was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HEAD_BYTES = 64  # how much of a file ``sniff`` needs

PNG = "image/png"
JPEG = "image/jpeg"
WEBP = "image/webp"
GLB = "model/gltf-binary"

IMAGE_TYPES = frozenset({PNG, JPEG, WEBP})

_GLB_HEADER_BYTES = 12
_GLB_VERSION = 2


@dataclass(frozen=True, slots=True)
class MediaType:
    """A content type, the extension of its files without a dot, and how their first ``HEAD_BYTES`` are known."""

    name: str
    extension: str
    matches: Callable[[bytes], bool]


def _starts(magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


PNG_FILE = MediaType(PNG, "png", _starts(b"\x89PNG\r\n\x1a\n"))
JPEG_FILE = MediaType(JPEG, "jpg", _starts(b"\xff\xd8\xff"))
WEBP_FILE = MediaType(WEBP, "webp", lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP")
GLB_FILE = MediaType(GLB, "glb", _starts(b"glTF"))

_KNOWN = {known.name: known for known in (PNG_FILE, JPEG_FILE, WEBP_FILE, GLB_FILE)}

# formats that providers are known to send and that nobody asked for: a repeat would bring the same
_UNWANTED: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("FBX", _starts(b"Kaydara FBX Binary")),
    ("GIF", _starts(b"GIF8")),
    ("ZIP", _starts(b"PK\x03\x04")),
)


def sniff(head: bytes) -> str | None:
    """Content type of a PNG, JPEG, WebP or GLB file from its first bytes, None for everything else."""
    return next((known.name for known in _KNOWN.values() if known.matches(head)), None)


def unwanted_format(head: bytes) -> str | None:
    """The name of a known format that is not one of ours."""
    return next((name for name, matches in _UNWANTED if matches(head)), None)


def extension_of(content_type: str) -> str:
    """File extension without a dot for a type that ``sniff`` answers. Raises KeyError for any other."""
    return _KNOWN[content_type].extension


def glb_declared_bytes(head: bytes) -> int | None:
    """Length in bytes that the header of a glTF 2 binary declares for the whole file; None when it is not one."""
    if len(head) < _GLB_HEADER_BYTES or sniff(head) != GLB:
        return None
    version, length = int.from_bytes(head[4:8], "little"), int.from_bytes(head[8:12], "little")
    return length if version == _GLB_VERSION else None
