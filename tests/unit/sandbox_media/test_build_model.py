import json
import struct
from typing import Any

import numpy as np
import pytest
from app.sandbox.media.models import build_model
from app.sandbox.media.subject import subject_mask
from PIL import Image, ImageDraw

from tests.unit.sandbox_media.pictures import cropped, loaded, overlap, photo, silhouette, vase, vertex_colours


def build(
    *views: Image.Image | None,
    face_limit: int | None = None,
    texture: bool = True,
    pbr: bool = False,
    texture_size: int = 256,
    seed: int = 1,
) -> bytes:
    return build_model(views, face_limit=face_limit, texture=texture, pbr=pbr, texture_size=texture_size, seed=seed)


def document(glb: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", glb, 12)
    return json.loads(glb[20 : 20 + length])


@pytest.mark.parametrize("name", ["astronaut", "coffee", "horse"])
def test_a_photo_becomes_a_closed_solid_with_the_subjects_outline_and_real_depth(name: str) -> None:
    picture = photo(name)
    mesh = loaded(build(picture))
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert mesh.body_count == 1
    assert float(mesh.area_faces.min()) > 1e-10
    assert 40_000 <= len(mesh.faces) <= 60_000
    width, height, depth = (float(side) for side in mesh.extents)
    assert height == pytest.approx(1.0, abs=1e-5)
    assert depth >= 0.25 * min(width, height)
    assert float(mesh.bounds[0][1]) == pytest.approx(0.0, abs=1e-5)
    assert mesh.bounds[:, 0].sum() == pytest.approx(0.0, abs=1e-5)
    mask = cropped(subject_mask(picture))
    assert overlap(silhouette(mesh, mask.shape), mask) >= 0.97


def test_a_handle_stays_open() -> None:
    picture, truth = vase(clear=True)
    mesh = loaded(build(picture))
    assert mesh.euler_number == 0
    assert mesh.is_watertight
    assert overlap(silhouette(mesh, cropped(truth).shape), cropped(truth)) >= 0.95


def test_the_front_shows_the_photo_and_the_back_does_not_mirror_its_features() -> None:
    picture = Image.new("RGB", (400, 400), (240, 240, 240))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60, 60, 340, 340), fill=(40, 90, 200))
    draw.ellipse((180, 180, 220, 220), fill=(250, 220, 20))
    mesh = loaded(build(picture, texture_size=512))
    colours = vertex_colours(mesh)
    points = np.asarray(mesh.vertices) - [0, 0.5, 0]
    middle = np.hypot(points[:, 0], points[:, 1]) < 0.04
    front, back = colours[middle & (points[:, 2] > 0)].mean(axis=0), colours[middle & (points[:, 2] < 0)].mean(axis=0)
    assert front[0] > 200
    assert front[2] < 80
    assert back[2] > 120
    # No white of the backdrop anywhere, not on the rim either.
    assert colours.min(axis=1).max() < 120


def test_a_back_view_covers_the_back() -> None:
    front, _ = vase()
    back = Image.new("RGB", (300, 400), (235, 235, 235))
    ImageDraw.Draw(back).ellipse((40, 40, 260, 360), fill=(20, 160, 40))
    mesh = loaded(build(front, None, back, None))
    colours = vertex_colours(mesh)
    behind = colours[np.asarray(mesh.vertex_normals)[:, 2] < -0.7].mean(axis=0)
    assert behind[1] > 120
    assert behind[0] < 60


def test_a_side_view_decides_the_depth_at_each_height() -> None:
    front = Image.new("RGB", (300, 400), (240, 240, 240))
    ImageDraw.Draw(front).rectangle((60, 40, 240, 360), fill=(180, 40, 40))
    side = Image.new("RGB", (400, 400), (240, 240, 240))
    ImageDraw.Draw(side).polygon([(180, 40), (220, 40), (360, 360), (40, 360)], fill=(180, 40, 40))
    for views in ((front, side), (front, None, None, side)):
        mesh = loaded(build(*views))
        height, depth = np.asarray(mesh.vertices)[:, 1], np.asarray(mesh.vertices)[:, 2]
        low, high = np.ptp(depth[np.abs(height - 0.2) < 0.04]), np.ptp(depth[np.abs(height - 0.85) < 0.04])
        assert low > 2.2 * high
        assert low == pytest.approx(0.85, abs=0.15)
        assert mesh.is_watertight


@pytest.mark.parametrize("limit", [40, 100, 599, 600, 3000, 90_000])
def test_the_face_limit_holds(limit: int) -> None:
    mesh = loaded(build(photo("horse"), face_limit=limit))
    assert 0 < len(mesh.faces) <= limit
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    if limit >= 600:
        assert len(mesh.faces) >= 0.8 * limit


def test_impossible_requests_say_why() -> None:
    with pytest.raises(ValueError, match="face_limit of at least 40"):
        build(photo("horse"), face_limit=39)
    with pytest.raises(ValueError, match="front view"):
        build(None, photo("horse"))
    with pytest.raises(ValueError, match="front view"):
        build()


def test_equal_arguments_give_equal_bytes_and_other_ones_other_bytes() -> None:
    first = build(photo("horse"), pbr=True)
    assert build(photo("horse"), pbr=True) == first
    assert build(photo("horse"), pbr=True, seed=2) != first
    assert build(photo("coffee"), pbr=True) != first


def test_the_file_says_what_the_options_ask() -> None:
    picture, _ = vase()
    bare = document(build(picture, texture=False))
    assert "images" not in bare
    assert "TEXCOORD_0" not in bare["meshes"][0]["primitives"][0]["attributes"]
    plain = document(build(picture))
    assert len(plain["images"]) == 1
    full = document(build(picture, texture=False, pbr=True))
    assert len(full["images"]) == 3
    material = full["materials"][0]
    assert {"baseColorTexture", "metallicRoughnessTexture"} <= set(material["pbrMetallicRoughness"])
    assert "normalTexture" in material
    assert full["asset"]["generator"] == "MakeIt3D sandbox"


def test_the_layout_of_the_file_is_what_the_format_demands() -> None:
    glb = build(vase()[0], pbr=True)
    told = document(glb)
    assert struct.unpack_from("<III", glb) == (0x46546C67, 2, len(glb))
    data = glb[20 + struct.unpack_from("<I", glb, 12)[0] + 8 :]
    assert told["buffers"] == [{"byteLength": len(data)}]
    assert all(view["byteOffset"] % 4 == 0 for view in told["bufferViews"])
    attributes = told["meshes"][0]["primitives"][0]["attributes"]
    accessor = told["accessors"][attributes["POSITION"]]
    view = told["bufferViews"][accessor["bufferView"]]
    assert view["target"] == 34962
    positions = np.frombuffer(data, "<f4", accessor["count"] * 3, view["byteOffset"]).reshape(-1, 3)
    assert np.allclose(positions.min(axis=0), accessor["min"])
    assert np.allclose(positions.max(axis=0), accessor["max"])
    for name, width in (("NORMAL", 3), ("TANGENT", 4)):
        view = told["bufferViews"][told["accessors"][attributes[name]]["bufferView"]]
        vectors = np.frombuffer(data, "<f4", accessor["count"] * width, view["byteOffset"]).reshape(-1, width)
        assert np.abs(np.linalg.norm(vectors[:, :3], axis=1) - 1).max() < 5e-4


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (640, 8)])
def test_odd_pictures_still_give_a_closed_solid(size: tuple[int, int]) -> None:
    mesh = loaded(build(Image.new("RGB", size, (200, 30, 30)), pbr=True))
    assert mesh.is_watertight
    assert mesh.volume > 0
