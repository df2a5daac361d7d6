import numpy as np
import trimesh
from app.sandbox.media.models import build_model, render_preview
from app.sandbox.media.subject import subject_mask
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from tests.unit.sandbox_media.pictures import difference, exported, photo, vase


def test_a_preview_shows_the_model_in_its_colours() -> None:
    glb = build_model([vase()[0]], face_limit=6000, texture=True, pbr=False, texture_size=256, seed=1)
    picture = render_preview(glb, size=256)
    assert picture.mode == "RGB"
    assert picture.size == (256, 256)
    mask = subject_mask(picture)
    assert 0.15 < mask.mean() < 0.6
    pixels = np.asarray(picture, float)[mask].mean(axis=0)
    assert pixels[0] > pixels[1]
    assert picture.tobytes() == render_preview(glb, size=256).tobytes()


def test_different_models_have_different_previews() -> None:
    first, second = (
        render_preview(
            build_model([photo(name)], face_limit=3000, texture=True, pbr=False, texture_size=128, seed=1), size=192
        )
        for name in ("horse", "coffee")
    )
    assert difference(first, second) > 5


def test_nearer_faces_hide_farther_ones() -> None:
    red, blue = trimesh.creation.box((1, 1, 0.2)), trimesh.creation.box((1, 1, 0.2))
    red.apply_translation((0, 0, 1.0))
    for mesh, colour in ((red, (1.0, 0.0, 0.0, 1.0)), (blue, (0.0, 0.0, 1.0, 1.0))):
        mesh.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=colour, metallicFactor=0.0))
    glb = exported(trimesh.Scene([blue, red]))
    pixels = np.asarray(render_preview(glb, size=200), int)
    reddish = (pixels[..., 0] > pixels[..., 2] + 60).sum()
    bluish = (pixels[..., 2] > pixels[..., 0] + 60).sum()
    assert reddish > 2 * bluish > 0
