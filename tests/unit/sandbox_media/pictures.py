"""Pictures and measures that the tests of the sandbox's media share."""

import io
from typing import Any

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data
from trimesh.visual import TextureVisuals


def photo(name: str) -> Image.Image:
    """One of scikit-image's public-domain pictures that ship inside its wheel."""
    pixels = np.asarray(getattr(data, name)())
    return Image.fromarray((pixels * 255).astype(np.uint8) if pixels.dtype == bool else pixels)


def vase(*, clear: bool = False) -> tuple[Image.Image, NDArray[np.bool_]]:
    """A vase with a handle before a plain, unevenly lit backdrop (or cut out), and its exact mask."""
    shape = Image.new("L", (480, 600), 0)
    draw = ImageDraw.Draw(shape)
    draw.ellipse((110, 220, 330, 540), fill=255)
    draw.rectangle((180, 90, 260, 300), fill=255)
    draw.ellipse((150, 70, 290, 120), fill=255)
    draw.ellipse((270, 180, 430, 380), fill=255)
    draw.ellipse((310, 220, 390, 340), fill=0)
    mask = np.asarray(shape) > 127
    y, x = np.mgrid[:600, :480] / 600
    colour = np.stack([180 - 90 * y, 60 + 80 * x, 70 + 20 * np.sin(40 * y)], axis=-1)
    light = 225 + 18 * (1 - y)[..., None] - 14 * x[..., None]
    pixels = np.where(mask[..., None], colour, light * [1.0, 0.99, 0.97])
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if clear:
        picture.putalpha(shape)
    return picture, mask


def face_sketch() -> Image.Image:
    picture = Image.new("RGB", (500, 500), (248, 246, 240))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((90, 60, 410, 440), outline=(30, 30, 40), width=6)
    draw.ellipse((170, 180, 210, 230), outline=(30, 30, 40), width=5)
    draw.ellipse((290, 180, 330, 230), outline=(30, 30, 40), width=5)
    draw.arc((180, 240, 320, 360), 20, 160, fill=(30, 30, 40), width=6)
    return picture


def loaded(glb: bytes) -> trimesh.Trimesh:
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def exported(scene: trimesh.Scene) -> bytes:
    glb = scene.export(file_type="glb")
    assert isinstance(glb, bytes)
    return glb


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def silhouette(mesh: trimesh.Trimesh, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """What the mesh covers seen from +z without perspective, its bounding box filling `shape`."""
    flat = np.asarray(mesh.vertices)[:, :2]
    low, high = flat.min(axis=0), flat.max(axis=0)
    size = np.array([shape[1], shape[0]])
    points = (flat - low) / (high - low) * size
    points[:, 1] = shape[0] - points[:, 1]
    canvas = np.zeros(shape, np.uint8)
    for triangle in np.round((points[np.asarray(mesh.faces)] - 0.5) * 16).astype(np.int32):
        cv2.fillConvexPoly(canvas, triangle, (1,), cv2.LINE_8, 4)
    return canvas > 0


def cropped(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of RGB, 0–255."""
    return float(np.abs(np.asarray(one.convert("RGB"), float) - np.asarray(other.convert("RGB"), float)).mean())


def vertex_colours(mesh: trimesh.Trimesh) -> NDArray[np.int64]:
    """RGB 0–255 that the base colour texture has at each vertex; shape (n, 3)."""
    assert isinstance(mesh.visual, TextureVisuals)
    material: Any = mesh.visual.material
    pixels = np.asarray(material.baseColorTexture.convert("RGB")).astype(np.int64)
    uv = np.asarray(mesh.visual.uv)
    # trimesh turns v upside down when it reads glTF.
    x, y = uv[:, 0] * pixels.shape[1], (1 - uv[:, 1]) * pixels.shape[0]
    return pixels[np.clip(y, 0, pixels.shape[0] - 1).astype(int), np.clip(x, 0, pixels.shape[1] - 1).astype(int)]
