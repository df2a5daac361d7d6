"""Reading GLB files that anybody may have sent: every offset, count and reference is checked before it is used."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from app.sandbox.media.arrays import Vectors
from app.sandbox.media.glb import BINARY_CHUNK, JSON_CHUNK, MAGIC

Entry: TypeAlias = dict[str, Any]

MAX_BYTES: Final = 150 * 1024 * 1024
"""What Tripo accepts for an import."""
_MAX_JSON_BYTES: Final = 16 * 1024 * 1024
_MAX_ENTRIES: Final = 20_000
_MAX_ELEMENTS: Final = 12_000_000
_MAX_TRIANGLES: Final = 2_000_000
_COMPONENTS: Final = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS: Final = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_UNDERSTOOD: Final = ("KHR_materials_", "KHR_texture_transform", "KHR_mesh_quantization", "KHR_lights_punctual")


@dataclass(frozen=True, slots=True)
class Part:
    """One triangle primitive of a mesh."""

    mesh: int
    number: int
    """Which primitive of the mesh."""
    entry: Entry
    positions: Vectors
    """Shape (n, 3), as stored."""
    triangles: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlacedPart:
    part: Part
    to_world: Vectors
    """Shape (4, 4)."""


class GlbFile:
    """A checked view of a GLB. Everything raises ValueError with a text that a client may read."""

    def __init__(self, data: bytes) -> None:
        text, self.binary = _chunks(data)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError("the GLB's JSON cannot be read") from error
        self.document: Entry = as_object(document, "document")
        version = as_object(self.document.get("asset"), "asset").get("version")
        if not isinstance(version, str) or not version.startswith("2."):
            raise ValueError("only glTF 2 is supported")
        for name in as_list(self.document.get("extensionsRequired"), "extensionsRequired"):
            if not str(name).startswith(_UNDERSTOOD):
                raise ValueError(f"the GLB requires the extension {str(name)[:60]!r}, which is not supported here")

    def entries(self, kind: str) -> list[Any]:
        return as_list(self.document.get(kind), kind)

    def entry(self, kind: str, index: object) -> Entry:
        entries = self.entries(kind)
        return as_object(entries[as_index(index, len(entries), kind)], kind)

    def view_bytes(self, index: object) -> memoryview:
        view = self.entry("bufferViews", index)
        buffers = self.entries("buffers")
        as_index(view.get("buffer"), min(len(buffers), 1), "buffer")
        if "uri" in as_object(buffers[0], "buffers"):
            raise ValueError("the GLB keeps its data in another file")
        start = as_count(view.get("byteOffset", 0), "byteOffset")
        length = as_count(view.get("byteLength"), "byteLength")
        if start + length > len(self.binary):
            raise ValueError("a bufferView reaches beyond the GLB's data")
        return self.binary[start : start + length]

    def numbers(self, index: object) -> NDArray[Any]:
        """An accessor's values, shape (count, width), as stored; normalised integers as 0–1 or -1–1 floats."""
        accessor = self.entry("accessors", index)
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ValueError("sparse and empty accessors are not supported here")
        code, shape = accessor.get("componentType"), accessor.get("type")
        if not isinstance(code, int) or code not in _COMPONENTS or not isinstance(shape, str) or shape not in _WIDTHS:
            raise ValueError("an accessor has an unknown type")
        kind, width = np.dtype(_COMPONENTS[code]), _WIDTHS[shape]
        count = as_count(accessor.get("count"), "count")
        if not 0 < count * width <= _MAX_ELEMENTS:
            raise ValueError("an accessor is empty or too large")
        data = self.view_bytes(accessor["bufferView"])
        start = as_count(accessor.get("byteOffset", 0), "byteOffset")
        packed = kind.itemsize * width
        stride = as_count(self.entry("bufferViews", accessor["bufferView"]).get("byteStride", packed), "byteStride")
        if stride < packed or (stride > 252 and stride != packed) or start + stride * (count - 1) + packed > len(data):
            raise ValueError("an accessor reaches beyond its data")
        values = np.ndarray((count, width), kind, buffer=data, offset=start, strides=(stride, kind.itemsize)).copy()
        if accessor.get("normalized") is True and kind.kind in "iu":
            return np.maximum(values.astype(np.float32) / np.iinfo(kind).max, -1.0)
        return values

    def vectors(self, index: object, width: int, what: str) -> Vectors:
        values = self.numbers(index).astype(np.float32)
        if values.shape[1] != width:
            raise ValueError(f"{what} has the wrong shape")
        if not np.isfinite(values).all() or float(np.abs(values).max()) > 1e7:
            raise ValueError(f"{what} holds values that are no positions")
        return values

    def mesh_parts(self, mesh: int) -> list[Part]:
        primitives = as_list(self.entry("meshes", mesh).get("primitives"), "primitives")
        parts = [self._part(mesh, number, as_object(one, "primitive")) for number, one in enumerate(primitives)]
        return [part for part in parts if part is not None]

    def _part(self, mesh: int, number: int, entry: Entry) -> Part | None:
        """The triangles of a primitive; None when it has none (points, lines)."""
        mode = entry.get("mode", 4)
        if "material" in entry:
            as_index(entry["material"], len(self.entries("materials")), "material")
        attributes = as_object(entry.get("attributes"), "attributes")
        if mode not in (4, 5, 6) or "POSITION" not in attributes:
            return None
        positions = self.vectors(attributes["POSITION"], 3, "POSITION")
        corners = np.arange(len(positions))
        if "indices" in entry:
            numbers = self.numbers(entry["indices"])
            if numbers.shape[1] != 1 or numbers.dtype.kind != "u" or int(numbers.max()) >= len(positions):
                raise ValueError("indices point to vertices that do not exist")
            corners = numbers[:, 0].astype(np.int64)
        triangles = _triangles(corners.astype(np.int64), cast("int", mode))
        if len(triangles) > _MAX_TRIANGLES:
            raise ValueError(f"more than {_MAX_TRIANGLES} triangles are not supported here")
        return Part(mesh, number, entry, positions, triangles) if len(triangles) else None

    def parts(self) -> list[Part]:
        """All triangle parts of all meshes; at least one, together within the limit of triangles."""
        parts: list[Part] = []
        for mesh in range(len(self.entries("meshes"))):
            parts += self.mesh_parts(mesh)
            if sum(len(one.triangles) for one in parts) > _MAX_TRIANGLES:
                raise ValueError(f"more than {_MAX_TRIANGLES} triangles are not supported here")
        if not parts:
            raise ValueError("the GLB holds no triangles")
        return parts

    def placed(self) -> list[PlacedPart]:
        """The parts of the scene with where they stand; all meshes once when no scene shows any."""
        placed: list[PlacedPart] = []
        known: dict[int, list[Part]] = {}
        total = 0
        for mesh, to_world in self._mesh_nodes():
            if mesh not in known:
                known[mesh] = self.mesh_parts(mesh)
            placed += [PlacedPart(part, to_world) for part in known[mesh]]
            total += sum(len(part.triangles) for part in known[mesh])
            if total > _MAX_TRIANGLES:
                raise ValueError(f"more than {_MAX_TRIANGLES} triangles are not supported here")
        return placed or [PlacedPart(part, np.eye(4)) for part in self.parts()]

    def _mesh_nodes(self) -> Iterator[tuple[int, Vectors]]:
        scenes = self.entries("scenes")
        if not scenes:
            return
        scene = self.entry("scenes", self.document.get("scene", 0))
        waiting = [(node, np.eye(4)) for node in as_list(scene.get("nodes"), "nodes")]
        visited: set[int] = set()
        while waiting:
            index, above = waiting.pop(0)
            number = as_index(index, len(self.entries("nodes")), "node")
            if number in visited:
                raise ValueError("a node of the GLB has two parents")
            visited.add(number)
            node = self.entry("nodes", number)
            to_world = above @ _local(node)
            if "mesh" in node:
                yield as_index(node["mesh"], len(self.entries("meshes")), "mesh"), to_world
            waiting += [(child, to_world) for child in as_list(node.get("children"), "children")]


def as_object(value: object, what: str) -> Entry:
    if not isinstance(value, dict):
        raise ValueError(f"the GLB's {what} is missing or no object")
    return cast("Entry", value)


def as_list(value: object, what: str) -> list[Any]:
    """A list; empty when absent."""
    if value is None:
        return []
    if not isinstance(value, list) or len(cast("list[Any]", value)) > _MAX_ENTRIES:
        raise ValueError(f"the GLB's {what} is no list or too long")
    return cast("list[Any]", value)


def as_count(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_BYTES:
        raise ValueError(f"the GLB's {what} is no sensible number")
    return value


def as_index(value: object, size: int, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < size:
        raise ValueError(f"the GLB refers to a {what} that does not exist")
    return value


def _chunks(data: bytes) -> tuple[bytes, memoryview]:
    if len(data) > MAX_BYTES:
        raise ValueError("the GLB is larger than 150 MB")
    if len(data) < 20 or struct.unpack_from("<I", data)[0] != MAGIC:
        raise ValueError("this is not a GLB file")
    version, total = struct.unpack_from("<II", data, 4)
    if version != 2 or total > len(data):
        raise ValueError("the GLB is cut off or of another version")
    length, kind = struct.unpack_from("<II", data, 12)
    if kind != JSON_CHUNK or length > _MAX_JSON_BYTES or 20 + length > total:
        raise ValueError("the GLB's first chunk is not its JSON")
    rest = 20 + length
    if rest + 8 > total:
        return data[20:rest], memoryview(b"")
    size, kind = struct.unpack_from("<II", data, rest)
    if kind != BINARY_CHUNK or rest + 8 + size > total:
        raise ValueError("the GLB's data chunk is cut off")
    return data[20:rest], memoryview(data)[rest + 8 : rest + 8 + size]


def _triangles(corners: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    if mode == 4:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if len(corners) < 3:
        return np.empty((0, 3), np.int64)
    if mode == 6:
        return np.stack([np.full(len(corners) - 2, corners[0]), corners[1:-1], corners[2:]], axis=1)
    strip = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    strip[1::2] = strip[1::2, [1, 0, 2]]
    return strip


def _local(node: Entry) -> Vectors:
    if "matrix" in node:
        return _floats(node["matrix"], 16).reshape(4, 4).T
    x, y, z, w = _floats(node.get("rotation", [0, 0, 0, 1]), 4)
    length = max(float(np.sqrt(x * x + y * y + z * z + w * w)), 1e-9)
    x, y, z, w = x / length, y / length, z / length, w / length
    local = np.eye(4)
    local[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    local[:3, :3] *= _floats(node.get("scale", [1, 1, 1]), 3)
    local[:3, 3] = _floats(node.get("translation", [0, 0, 0]), 3)
    return local


def _floats(values: object, count: int) -> Vectors:
    numbers = as_list(values, "transform")
    if len(numbers) != count or not all(isinstance(one, int | float) and abs(one) < 1e9 for one in numbers):
        raise ValueError("a node's transform is no transform")
    return np.array(numbers, np.float64)
