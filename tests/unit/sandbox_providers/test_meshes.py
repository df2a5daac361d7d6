"""Mesh formats against an independent reader."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
import trimesh
from app.sandbox.media.models import build_model
from app.sandbox.providers.tripo_files import sniff
from app.sandbox.providers.tripo_meshes import Placing, as_glb, export, turned
from PIL import Image

from tests.unit.sandbox_providers.served import picture


@pytest.fixture(scope="module")
def glb() -> bytes:
    photo = Image.open(io.BytesIO(picture()))
    return build_model([photo], face_limit=600, texture=True, pbr=False, texture_size=128, seed=1)


def read(content: bytes, kind: str) -> Any:  # noqa: ANN401 - trimesh is untyped here
    mesh: Any = trimesh.load(io.BytesIO(content), file_type=kind, force="mesh")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return mesh


@pytest.mark.parametrize(("format_name", "kind"), [("GLB", "glb"), ("STL", "stl")])
def test_exports_keep_the_solid(glb: bytes, format_name: str, kind: str) -> None:
    content, suffix = export(glb, format_name, Placing(scale=3.0, on_the_ground=True))
    assert suffix == f".{kind}"
    mesh, before = read(content, kind), read(glb, "glb")
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(27 * before.volume, rel=1e-3)
    assert mesh.bounds[0][1] == pytest.approx(0, abs=1e-5)


def test_gltf_is_one_file(glb: bytes) -> None:
    document = json.loads(export(glb, "GLTF", Placing())[0])
    data = base64.b64decode(document["buffers"][0]["uri"].partition(",")[2])
    assert len(data) == document["buffers"][0]["byteLength"]


def test_obj_comes_with_material_and_texture(glb: bytes) -> None:
    content, _ = export(glb, "OBJ", Placing())
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert Image.open(io.BytesIO(archive.read("texture0.jpg"))).size == (128, 128)
    assert b"map_Kd texture0.jpg" in archive.read("model.mtl")
    bare = "\n".join(line for line in archive.read("model.obj").decode().splitlines() if "mtl" not in line)
    assert read(bare.encode(), "obj").is_watertight


def test_3mf_is_upright(glb: bytes) -> None:
    content, _ = export(glb, "3MF", Placing())
    model = zipfile.ZipFile(io.BytesIO(content)).read("3D/3dmodel.model").decode()
    heights = [float(part.split('"')[0]) for part in model.split(' z="')[1:]]
    assert (min(heights), max(heights)) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))


def test_turning_turns(glb: bytes) -> None:
    before, after = read(glb, "glb"), read(turned(glb, 90.0), "glb")
    assert np.allclose(after.extents, before.extents[[2, 1, 0]], atol=1e-4)


def test_stl_becomes_a_welded_glb(glb: bytes) -> None:
    stl, _ = export(glb, "STL", Placing())
    for content in (stl, ascii_stl(stl)):
        assert read(as_glb(content, "model/stl"), "glb").is_watertight


def ascii_stl(binary: bytes) -> bytes:
    lines = ["solid sandbox"]
    for start in range(84, len(binary), 50):
        values = struct.unpack_from("<12f", binary, start)
        lines += ["facet normal 0 0 0", "outer loop"]
        lines += [f"vertex {values[k]!r} {values[k + 1]!r} {values[k + 2]!r}" for k in (3, 6, 9)]
        lines += ["endloop", "endfacet"]
    return "\n".join([*lines, "endsolid"]).encode()


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"glTF" + bytes(40), "model/gltf-binary"),
        (bytes(84), "model/stl"),
        (b"solid x\nvertex 0 0\n", "model/stl"),
        (b"solid x\nvertex 0 0 nan\nvertex 0 0 0\nvertex 0 0 0", "model/stl"),
        (b"v 0 0 0\nf 1 2 3\n", "model/obj"),
        (b"v 0 0\nf 1 1 1\n", "model/obj"),
        (b"v a b c\n", "model/obj"),
        (b"v 0 0 0\n", "model/obj"),
        (b"Kaydara FBX Binary", "application/octet-stream"),
    ],
)
def test_what_is_no_mesh_is_a_value_error(content: bytes, content_type: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        as_glb(content, content_type)


@pytest.mark.parametrize(
    ("head", "content_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBP", "image/webp"),
        (b"glTF\x02", "model/gltf-binary"),
        (b"solid x", "model/stl"),
        (b"# made by hand\nv 0 0 0", "model/obj"),
        (b"<html>", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_sniffing(head: bytes, content_type: str) -> None:
    assert sniff(head) == content_type
