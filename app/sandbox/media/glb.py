"""Writing GLB files (glTF 2.0 binary, Khronos specification §4 and §5)."""

import json
import struct
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from app.sandbox.media.arrays import Vectors

GENERATOR: Final = "MakeIt3D sandbox"
MAGIC: Final = 0x46546C67
JSON_CHUNK: Final = 0x4E4F534A
BINARY_CHUNK: Final = 0x004E4942
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_FLOAT, _UNSIGNED_INT, _UNSIGNED_SHORT = 5126, 5125, 5123
_TYPES: Final = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


class GlbBuilder:
    """Collects bytes and the objects that describe them; indices returned are those of glTF."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self.document: dict[str, Any] = document if document is not None else {}
        self._binary = bytearray()
        self._sampler: int | None = None

    def add(self, kind: str, entry: dict[str, Any]) -> int:
        entries: list[dict[str, Any]] = self.document.setdefault(kind, [])
        entries.append(entry)
        return len(entries) - 1

    def attribute(self, values: Vectors, *, bounds: bool = False) -> int:
        """An accessor of float vectors, shape (n, 2–4). `bounds` adds min and max, which POSITION must have."""
        accessor: dict[str, Any] = {
            "bufferView": self.view(np.ascontiguousarray(values, "<f4").tobytes(), target=_ARRAY_BUFFER),
            "componentType": _FLOAT,
            "count": len(values),
            "type": _TYPES[values.shape[1]],
        }
        if bounds:
            accessor["min"] = [float(value) for value in values.min(axis=0)]
            accessor["max"] = [float(value) for value in values.max(axis=0)]
        return self.add("accessors", accessor)

    def indices(self, triangles: NDArray[np.integer[Any]]) -> int:
        """An accessor of triangle corners; the smallest type that holds them."""
        short = int(triangles.max()) < 0xFFFF
        packed = np.ascontiguousarray(triangles.reshape(-1), "<u2" if short else "<u4").tobytes()
        return self.add(
            "accessors",
            {
                "bufferView": self.view(packed, target=_ELEMENT_ARRAY_BUFFER),
                "componentType": _UNSIGNED_SHORT if short else _UNSIGNED_INT,
                "count": int(triangles.size),
                "type": "SCALAR",
            },
        )

    def texture(self, encoded: bytes, mime: Literal["image/png", "image/jpeg"], *, name: str) -> int:
        image = self.add("images", {"name": name, "mimeType": mime, "bufferView": self.view(encoded)})
        if self._sampler is None:
            # Linear with mipmaps, repeating as the default does.
            self._sampler = self.add("samplers", {"magFilter": 9729, "minFilter": 9987})
        return self.add("textures", {"name": name, "source": image, "sampler": self._sampler})

    def view(self, data: bytes, *, target: int | None = None) -> int:
        self._binary += b"\0" * (-len(self._binary) % 4)
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        if target is not None:
            entry["target"] = target
        self._binary += data
        return self.add("bufferViews", entry)

    def pack(self) -> bytes:
        """The file. Sets `asset` and the one buffer."""
        asset = {"version": "2.0", "generator": GENERATOR, "extras": {"source": "sandbox"}}
        binary = bytes(self._binary) + b"\0" * (-len(self._binary) % 4)
        document = {**self.document, "asset": asset, "buffers": [{"byteLength": len(binary)}]}
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + len(binary)
        head = struct.pack("<III", MAGIC, 2, total) + struct.pack("<II", len(text), JSON_CHUNK)
        return b"".join((head, text, struct.pack("<II", len(binary), BINARY_CHUNK), binary))
