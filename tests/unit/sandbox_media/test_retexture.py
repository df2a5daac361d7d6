import io
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trimesh
from app.sandbox.media.models import build_model, render_preview, retexture_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.sandbox_media.pictures import difference, exported, loaded, vase, vertex_colours

Document = dict[str, Any]


@pytest.fixture(scope="module")
def model() -> bytes:
    return build_model([vase()[0]], face_limit=3000, texture=True, pbr=True, texture_size=256, seed=1)


def retexture(
    glb: bytes, prompt: str | None = None, *, reference: Image.Image | None = None, size: int = 256, seed: int = 1
) -> bytes:
    return retexture_model(glb, prompt=prompt, reference=reference, texture_size=size, seed=seed)


def unpacked(glb: bytes) -> tuple[Document, bytes]:
    (length,) = struct.unpack_from("<I", glb, 12)
    return json.loads(glb[20 : 20 + length]), glb[20 + length + 8 :]


def packed(document: object, data: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks


def geometry(glb: bytes, name: str) -> bytes:
    document, data = unpacked(glb)
    primitive = document["meshes"][0]["primitives"][0]
    index = primitive["indices"] if name == "indices" else primitive["attributes"][name]
    view = document["bufferViews"][document["accessors"][index]["bufferView"]]
    return data[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]


def base_colour(glb: bytes) -> Image.Image:
    document, data = unpacked(glb)
    texture = document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
    image = document["images"][document["textures"][texture]["source"]]
    view = document["bufferViews"][image["bufferView"]]
    return Image.open(io.BytesIO(data[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))


def test_geometry_stays_byte_for_byte(model: bytes) -> None:
    skinned = retexture(model, "weathered oak, brass fittings")
    for name in ("POSITION", "NORMAL", "TANGENT", "TEXCOORD_0", "indices"):
        assert geometry(skinned, name) == geometry(model, name)
    assert loaded(skinned).is_watertight


def test_materials_look_and_shine_as_named(model: bytes) -> None:
    gold = unpacked(retexture(model, "polished gold"))[0]["materials"][0]
    assert gold["pbrMetallicRoughness"]["metallicFactor"] == 1.0
    marble = retexture(model, "white marble")
    assert unpacked(marble)[0]["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0.0
    assert vertex_colours(loaded(marble)).mean() > 150
    glowing = unpacked(retexture(model, "neon"))[0]["materials"][0]
    assert max(glowing["emissiveFactor"]) > 0.5
    # The normal map belongs to the shape and stays.
    assert "normalTexture" in gold


def test_size_prompt_and_seed_decide_the_skin(model: bytes) -> None:
    oak = retexture(model, "oak", size=512)
    assert base_colour(oak).size == (512, 512)
    assert oak == retexture(model, "oak", size=512)
    assert difference(base_colour(oak), base_colour(retexture(model, "walnut", size=512))) > 8
    assert difference(base_colour(oak), base_colour(retexture(model, "oak", size=512, seed=9))) > 1
    words = [base_colour(retexture(model, words, size=128)) for words in ("frumious", "slithy", "deep blue")]
    assert all(difference(words[one], words[other]) > 3 for one, other in ((0, 1), (0, 2), (1, 2)))


def test_light_and_dark_of_the_old_skin_stay_visible(model: bytes) -> None:
    before = np.asarray(base_colour(model).convert("L").resize((128, 128)), float).ravel()
    after = np.asarray(base_colour(retexture(model, "ceramic")).convert("L").resize((128, 128)), float).ravel()
    assert np.corrcoef(before, after)[0, 1] > 0.3


def test_a_reference_lends_its_colours(model: bytes) -> None:
    pixels = np.full((200, 160, 3), 245, np.uint8)
    pixels[20:180, 30:130] = (20, 60, 220)
    pixels[20:100, 30:130] = (20, 190, 40)
    mesh = loaded(retexture(model, reference=Image.fromarray(pixels)))
    colours, height = vertex_colours(mesh), np.asarray(mesh.vertices)[:, 1]
    front = np.asarray(mesh.vertex_normals)[:, 2] > 0.5
    above, below = colours[front & (height > 0.7)].mean(axis=0), colours[front & (height < 0.3)].mean(axis=0)
    assert above[1] > above[2] + 40
    assert below[2] > below[1] + 40


def test_a_model_of_somebody_else_with_many_meshes_and_no_coordinates() -> None:
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=np.eye(4))
    moved = np.eye(4)
    moved[:3, 3] = (2, 0, 0)
    scene.add_geometry(trimesh.creation.icosphere(subdivisions=2), transform=moved)
    source = exported(scene)
    skinned = retexture(source, "bronze")
    before, after = loaded(source), loaded(skinned)
    assert np.allclose(before.bounds, after.bounds)
    assert len(before.faces) == len(after.faces)
    document, _ = unpacked(skinned)
    primitives = [primitive for mesh in document["meshes"] for primitive in mesh["primitives"]]
    assert len(primitives) == 2
    assert all("TEXCOORD_0" in primitive["attributes"] and "material" in primitive for primitive in primitives)
    assert render_preview(skinned, size=96).size == (96, 96)


def test_the_result_can_be_retextured_again(model: bytes) -> None:
    twice = retexture(retexture(model, "oak"), "gold")
    assert geometry(twice, "POSITION") == geometry(model, "POSITION")
    assert len(unpacked(twice)[0]["images"]) == 2  # the new skin and the shape's own normal map


def broken(change: Callable[[Document], object]) -> Callable[[bytes], bytes]:
    def apply(glb: bytes) -> bytes:
        document, data = unpacked(glb)
        change(document)
        return packed(document, data)

    return apply


def _accessor(document: Document, name: str) -> Document:
    return document["accessors"][document["meshes"][0]["primitives"][0]["attributes"][name]]


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda glb: glb[:0],
    "text": lambda glb: b"<html>not a model</html>" + glb,
    "cut off": lambda glb: glb[: len(glb) // 2],
    "header only": lambda glb: glb[:12],
    "json is no json": lambda glb: glb[:20] + b"x" + glb[21:],
    "deeply nested": lambda glb: glb[:8] + struct.pack("<III", 200_020, 200_000, 0x4E4F534A) + b"[" * 200_000,
    "version 1": broken(lambda d: d.update(asset={"version": "1.0"})),
    "no meshes": broken(lambda d: [d.pop(key) for key in ("meshes", "nodes", "scenes")]),
    "huge count": broken(lambda d: _accessor(d, "POSITION").update(count=2**40)),
    "count beyond data": broken(lambda d: _accessor(d, "POSITION").update(count=11_000_00)),
    "negative offset": broken(lambda d: _accessor(d, "POSITION").update(byteOffset=-4)),
    "negative view": broken(lambda d: d["bufferViews"][0].update(byteOffset=-1)),
    "view beyond data": broken(lambda d: d["bufferViews"][0].update(byteLength=2**31)),
    "tiny stride": broken(lambda d: d["bufferViews"][0].update(byteStride=1)),
    "positions are scalars": broken(lambda d: _accessor(d, "POSITION").update(type="SCALAR")),
    "unknown component": broken(lambda d: _accessor(d, "POSITION").update(componentType=5124)),
    "sparse": broken(lambda d: _accessor(d, "POSITION").update(sparse={})),
    "indices beyond vertices": broken(
        lambda d: _accessor(d, "POSITION").update(count=10) or _accessor(d, "TEXCOORD_0").update(count=10)
    ),
    "accessor missing": broken(lambda d: d["meshes"][0]["primitives"][0]["attributes"].update(POSITION=999)),
    "accessor is text": broken(lambda d: d["meshes"][0]["primitives"][0]["attributes"].update(POSITION="0")),
    "external buffer": broken(lambda d: d["buffers"][0].update(uri="http://192.0.2.1/data.bin")),
    "compressed": broken(lambda d: d.update(extensionsRequired=["KHR_draco_mesh_compression"])),
    "material missing": broken(lambda d: d["meshes"][0]["primitives"][0].update(material=77)),
    "material unhashable": broken(lambda d: d["meshes"][0]["primitives"][0].update(material=[])),
    "texture is no picture": broken(lambda d: d["images"][0].update(bufferView=0)),
    "factor is text": broken(lambda d: d["materials"][0]["pbrMetallicRoughness"].update(metallicFactor="1")),
    "node loop": broken(lambda d: d["nodes"][0].update(children=[0])),
    "nan in transform": broken(lambda d: d["nodes"][0].update(translation=[float("nan"), 0, 0])),
    "meshes is a number": broken(lambda d: d.update(meshes=5)),
}


def skinned_small(glb: bytes) -> object:
    return retexture(glb, "oak", size=64)


def drawn_small(glb: bytes) -> object:
    return render_preview(glb, size=64)


def refusal(glb: bytes, use: Callable[[bytes], object]) -> str:
    """What the ValueError said; empty when there was none. Any other error fails the test."""
    try:
        use(glb)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_no_usable_model_is_refused_in_words(model: bytes, kind: str) -> None:
    glb = HOSTILE[kind](model)
    told = [refusal(glb, use) for use in (skinned_small, drawn_small)]
    assert any(told)
    assert all(len(text) > 10 for text in told if text)


def test_json_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="document"):
        render_preview(packed([]))


def test_infinite_positions_are_refused(model: bytes) -> None:
    document, data = unpacked(model)
    view = document["bufferViews"][_accessor(document, "POSITION")["bufferView"]]
    start = view["byteOffset"]
    poisoned = data[:start] + struct.pack("<f", float("inf")) + data[start + 4 :]
    with pytest.raises(ValueError, match="no positions"):
        retexture(packed(document, poisoned), "oak")


def test_overlapping_giants_do_not_hang() -> None:
    count = 20_000
    corners = np.tile(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4"), (count, 1))
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": corners.nbytes}],
        "bufferViews": [{"buffer": 0, "byteLength": corners.nbytes}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3 * count, "type": "VEC3"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
    }
    with pytest.raises(ValueError, match="overlap too much"):
        render_preview(packed(document, corners.tobytes()), size=768)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes_raise_nothing_but_value_errors(flips: list[tuple[float, int]]) -> None:
    spoiled = bytearray(exported(trimesh.Scene(trimesh.creation.box((1, 2, 1)))))
    for place, value in flips:
        spoiled[int(place * len(spoiled))] = value
    for use in (skinned_small, drawn_small):
        refusal(bytes(spoiled), use)
