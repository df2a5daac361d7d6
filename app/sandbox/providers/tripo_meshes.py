"""Mesh formats of imports and conversions: GLB, glTF, STL, OBJ and 3MF, read and written from real geometry."""

from __future__ import annotations

import base64
import copy
import io
import json
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.sandbox import media
from app.sandbox.media.arrays import Triangles, Vectors
from app.sandbox.media.glb import BINARY_CHUNK, JSON_CHUNK, MAGIC, GlbBuilder
from app.sandbox.media.glb_read import GlbFile, as_object

_MAX_TRIANGLES = 2_000_000
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


@dataclass(frozen=True, slots=True)
class Placing:
    """How an export stands: scaled, and with its lowest middle in the origin where asked for."""

    scale: float = 1.0
    on_the_ground: bool = False

    def matrix(self, points: Vectors) -> NDArray[np.float64]:
        """Shape (4, 4)."""
        matrix = np.eye(4)
        matrix[:3, :3] *= self.scale
        if self.on_the_ground:
            low, high = points.min(axis=0), points.max(axis=0)
            middle = (low + high) / 2
            matrix[:3, 3] = -self.scale * np.array([middle[0], low[1], middle[2]])
        return matrix


# --- reading --------------------------------------------------------------------------------------------------------


def as_glb(data: bytes, content_type: str) -> bytes:
    """A model file as GLB. Raises ValueError, with a text for clients, for what is no readable mesh."""
    match content_type:
        case "model/gltf-binary":
            GlbFile(data).parts()
            return data
        case "model/stl":
            return _packed(*_read_stl(data))
        case "model/obj":
            return _packed(*_read_obj(data))
        case _:
            raise ValueError("the sandbox reads GLB, STL and OBJ")


def _read_stl(data: bytes) -> tuple[Vectors, Triangles]:
    corners: NDArray[np.float32]
    if data[:6] == b"solid " and b"vertex" in data[:4096]:
        lines = (line.split() for line in data.decode("ascii", "replace").splitlines())
        found = [[float(part) for part in words[1:4]] for words in lines if words[:1] == ["vertex"]]
        if not found or len(found) % 3 or any(len(row) != 3 for row in found):
            raise ValueError("the STL's facets cannot be read")
        corners = np.array(found, np.float32)
    else:
        count = min(len(data) - 84, len(data)) // 50
        if not 0 < count <= _MAX_TRIANGLES:
            raise ValueError("the STL has no triangles, or too many")
        corners = np.frombuffer(data, _STL_TRIANGLE, count, 84)["corners"].reshape(-1, 3).astype(np.float32)
    points, index = np.unique(corners, axis=0, return_inverse=True)
    return points, index.reshape(-1, 3).astype(np.int64)


def _read_obj(data: bytes) -> tuple[Vectors, Triangles]:
    points: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            points.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            numbers = [int(word.partition("/")[0]) for word in words[1:]]
            face = [number - 1 if number > 0 else len(points) + number for number in numbers]
            triangles += [(face[0], face[k], face[k + 1]) for k in range(1, len(face) - 1)]
            if len(triangles) > _MAX_TRIANGLES:
                raise ValueError("the OBJ has too many triangles")
    if not triangles or any(len(point) != 3 for point in points):
        raise ValueError("the OBJ holds no faces")
    index = np.array(triangles, np.int64)
    if int(index.min()) < 0 or int(index.max()) >= len(points):
        raise ValueError("a face of the OBJ points to a vertex that does not exist")
    return np.array(points, np.float32), index


def _packed(points: Vectors, triangles: Triangles) -> bytes:
    if not np.isfinite(points).all() or float(np.ptp(points, axis=0).max()) <= 0:
        raise ValueError("the model has no extent")
    builder = GlbBuilder()
    attributes = {
        "POSITION": builder.attribute(points, bounds=True),
        "NORMAL": builder.attribute(media.vertex_normals(points, triangles)),
    }
    surface = {"baseColorFactor": [0.72, 0.7, 0.67, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.85}
    builder.add("materials", {"name": "sandbox", "pbrMetallicRoughness": surface})
    primitive = {"attributes": attributes, "indices": builder.indices(triangles), "material": 0, "mode": 4}
    builder.add("meshes", {"name": "imported", "primitives": [primitive]})
    builder.add("nodes", {"name": "sandbox import", "mesh": 0})
    builder.add("scenes", {"nodes": [0]})
    builder.document["scene"] = 0
    return builder.pack()


# --- writing --------------------------------------------------------------------------------------------------------


def export(glb: bytes, format_name: str, placing: Placing) -> tuple[bytes, str]:
    """The file and its suffix. OBJ comes as a zip with material and texture. Raises ValueError."""
    file = GlbFile(glb)
    points, triangles = _geometry(file)
    matrix = placing.matrix(points)
    match format_name:
        case "GLTF":
            return _gltf(_under_a_root(file, matrix), file.binary), ".gltf"
        case "GLB":
            return _glb(_under_a_root(file, matrix), file.binary), ".glb"
        case "STL":
            return _stl(_moved(points, matrix), triangles), ".stl"
        case "3MF":
            return _3mf(_moved(points, matrix), triangles), ".3mf"
        case "OBJ":
            return _obj(file, matrix), ".zip"
        case _:
            raise ValueError(f"the sandbox does not write {format_name}")


def turned(glb: bytes, degrees: float) -> bytes:
    """The model turned about the upright axis."""
    file = GlbFile(glb)
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[0, 0] = matrix[2, 2] = np.cos(angle)
    matrix[0, 2], matrix[2, 0] = np.sin(angle), -np.sin(angle)
    return _glb(_under_a_root(file, matrix), file.binary)


def _geometry(file: GlbFile) -> tuple[Vectors, Triangles]:
    points: list[Vectors] = []
    triangles: list[NDArray[np.int64]] = []
    first = 0
    for placed in file.placed():
        world = _moved(placed.part.positions, placed.to_world)
        points.append(world)
        triangles.append(placed.part.triangles + first)
        first += len(world)
    return np.concatenate(points), np.concatenate(triangles)


def _moved(points: Vectors, matrix: NDArray[Any]) -> Vectors:
    return (points @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)


def _under_a_root(file: GlbFile, matrix: NDArray[np.float64]) -> dict[str, Any]:
    """The document with one new node above everything that its scene shows."""
    document = copy.deepcopy(file.document)
    if np.array_equal(matrix, np.eye(4)):
        return document
    scene = document["scenes"][document.get("scene", 0)]
    root = {"name": "sandbox placing", "children": scene["nodes"], "matrix": matrix.T.reshape(-1).tolist()}
    document["nodes"].append(root)
    scene["nodes"] = [len(document["nodes"]) - 1]
    return document


def _gltf(document: dict[str, Any], binary: memoryview) -> bytes:
    document["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    return json.dumps(document, separators=(",", ":")).encode()


def _glb(document: dict[str, Any], binary: memoryview) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = bytes(binary) + b"\0" * (-len(binary) % 4)
    head = struct.pack("<III", MAGIC, 2, 28 + len(text) + len(body)) + struct.pack("<II", len(text), JSON_CHUNK)
    return b"".join((head, text, struct.pack("<II", len(body), BINARY_CHUNK), body))


def _stl(points: Vectors, triangles: Triangles) -> bytes:
    records = np.zeros(len(triangles), _STL_TRIANGLE)
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    records["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    records["corners"] = corners
    return b"MakeIt3D sandbox".ljust(80, b"\0") + struct.pack("<I", len(triangles)) + records.tobytes()


def _obj(file: GlbFile, matrix: NDArray[np.float64]) -> bytes:
    lines, materials = ["# MakeIt3D sandbox", "mtllib model.mtl"], list[str]()
    pictures: dict[str, bytes] = {}
    first = 1
    for number, placed in enumerate(file.placed()):
        part = placed.part
        points = _moved(_moved(part.positions, placed.to_world), matrix)
        attributes = as_object(part.entry["attributes"], "attributes")
        uv = file.vectors(attributes["TEXCOORD_0"], 2, "TEXCOORD_0") if "TEXCOORD_0" in attributes else None
        lines += [f"o part{number}", f"usemtl material{number}"]
        lines += [f"v {x:.6g} {y:.6g} {z:.6g}" for x, y, z in points.tolist()]
        if uv is not None:
            lines += [f"vt {u:.6g} {1 - v:.6g}" for u, v in uv.tolist()]
        corner = "{0}/{0}" if uv is not None else "{0}"
        for face in (part.triangles + first).tolist():
            lines.append("f " + " ".join(corner.format(index) for index in face))
        first += len(points)
        picture = _base_picture(file, part.entry.get("material"))
        materials += [f"newmtl material{number}", "Kd 1 1 1"]
        if picture is not None:
            pictures[f"texture{number}.jpg"] = picture
            materials.append(f"map_Kd texture{number}.jpg")
    return _zip({"model.obj": "\n".join(lines).encode(), "model.mtl": "\n".join(materials).encode(), **pictures})


def _base_picture(file: GlbFile, material: object) -> bytes | None:
    if material is None:
        return None
    surface = as_object(file.entry("materials", material).get("pbrMetallicRoughness", {}), "pbrMetallicRoughness")
    pixels = media.texture_pixels(file, surface.get("baseColorTexture"))
    if pixels is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _3mf(points: Vectors, triangles: Triangles) -> bytes:
    # 3MF counts in the unit it names and has z upwards
    vertices = "".join(f'<vertex x="{x:.6g}" y="{-z:.6g}" z="{y:.6g}"/>' for x, y, z in points.tolist())
    faces = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in triangles.tolist())
    model = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<model unit="meter" xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">'
        f'<resources><object id="1" type="model"><mesh><vertices>{vertices}</vertices>'
        f"<triangles>{faces}</triangles></mesh></object></resources>"
        '<build><item objectid="1"/></build></model>'
    )
    types = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
    )
    relations = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
        'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
    )
    return _zip(
        {"[Content_Types].xml": types.encode(), "_rels/.rels": relations.encode(), "3D/3dmodel.model": model.encode()}
    )


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
