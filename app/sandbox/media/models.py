"""Models of the sandbox: a photo's subject becomes a closed, textured solid; an old model gets a new skin."""

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

from app.sandbox.media import atlas as textures
from app.sandbox.media.arrays import Mask, Pixels, Vectors
from app.sandbox.media.glb import GlbBuilder
from app.sandbox.media.meshing import Sheet, fill, sample, signed_distance
from app.sandbox.media.preview import render_preview
from app.sandbox.media.relief import inflate
from app.sandbox.media.retexture import retexture_model
from app.sandbox.media.solid import Panels, Solid, raise_sheet
from app.sandbox.media.subject import subject_mask

__all__ = ["build_model", "render_preview", "retexture_model"]

_DEFAULT_FACES: Final = 48_000
_FEWEST_FACES: Final = 40
_COARSE_FACES: Final = 600
"""Below this the back shares the front's texture, which saves the wall's middle strip."""
_PHOTO_SIDE: Final = 1280
_RELIEF_SIDE: Final = 384
_SHALLOWEST, _DEEPEST = 0.34, 0.95
"""Bounds of the depth as shares of the smaller extent of the front."""
_TEXTURE_SIDES: Final = (64, 4096)


def build_model(
    views: Sequence[Image.Image | None],
    *,
    face_limit: int | None,
    texture: bool,
    pbr: bool,
    texture_size: int,
    seed: int,
) -> bytes:
    """A GLB of the subject of `views`: front, left, back, right; only the front is needed.

    Metres, y up, front to +z, standing on the origin, height 1. The front's outline is the subject's. Depth is
    inflated from the outline, or follows the side views (the left view is seen from +x, its front to its left).
    `pbr` implies `texture`, as at Tripo. The atlas is square, `texture_size` clamped to 64–4096 pixels. `seed`
    varies the depth of what the front does not tell by a few per cent.

    Raises ValueError without a front view or for a `face_limit` below 40.
    """
    front_view = views[0] if views else None
    if front_view is None:
        raise ValueError("a front view is needed")
    if face_limit is not None and face_limit < _FEWEST_FACES:
        raise ValueError(f"a closed model needs a face_limit of at least {_FEWEST_FACES}")
    left, back, right = [*views[1:4], None, None, None][:3]
    photo, mask = _subject(front_view)
    rng = np.random.default_rng(seed & 0xFFFFFFFF)
    limit = face_limit if face_limit is not None else _DEFAULT_FACES
    sheet = _sheet(mask, limit)
    panels = _panels(sheet, shared=limit < _COARSE_FACES)
    front_height, back_height = _depths(photo, mask, _profiles(left, right), fullness=float(rng.uniform(0.94, 1.06)))
    solid = raise_sheet(
        sheet,
        front=sample(front_height, sheet.points),
        back=sample(back_height, sheet.points),
        rim=0.012 * min(np.ptp(sheet.points, axis=0)),
        panels=panels,
    )
    return _pack(solid, _skin(photo, mask, back, panels, texture_size) if texture or pbr else None, pbr=pbr)


def _subject(picture: Image.Image) -> tuple[Pixels, Mask]:
    picture = ImageOps.exif_transpose(picture)
    working = picture.copy() if "A" in picture.getbands() or "transparency" in picture.info else picture.convert("RGB")
    if working.mode not in {"RGB", "RGBA"}:
        working = working.convert("RGBA")
    # Icons grow first: an outline of a few pixels has no shape to follow.
    growth = min(max(1.0, 256 / max(working.size), 48 / min(working.size)), _PHOTO_SIDE / max(working.size))
    if growth > 1:
        size = round(working.width * growth), round(working.height * growth)
        working = working.resize(size, Image.Resampling.BICUBIC)
    working.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE), Image.Resampling.LANCZOS)
    return np.array(working.convert("RGB")), subject_mask(working)


def _sheet(mask: Mask, limit: int) -> Sheet:
    """The finest sheet whose solid stays within `limit` faces."""
    smoothing = max(0.8, max(mask.shape) / 700)
    distance = signed_distance(mask, smoothing=smoothing)
    cell = max(1.2, float(np.sqrt(4.0 * mask.sum() / limit)))
    for _ in range(60):
        sheet = fill(distance, cell=cell)
        wall = 2 if limit < _COARSE_FACES else 6
        faces = 2 * len(sheet.triangles) + wall * len(sheet.outline)
        if 0 < faces <= limit:
            return sheet
        if not faces:
            break
        cell *= max(1.03, float(np.sqrt(faces / limit)) * 1.002)
    raise ValueError(f"this subject's outline needs a face_limit above {limit}")


def _panels(sheet: Sheet, *, shared: bool) -> Panels:
    low, high = sheet.points.min(axis=0), sheet.points.max(axis=0)
    margin = 0.03 * (high - low).max()
    width, height = high - low + 2 * margin
    return Panels(
        left=float(low[0] - margin),
        top=float(low[1] - margin),
        width=float(width),
        height=float(height),
        side_by_side=bool(height >= width),
        shared=shared,
    )


def _depths(photo: Pixels, mask: Mask, profile: Vectors | None, *, fullness: float) -> tuple[Vectors, Vectors]:
    """Heights in pixels above the middle plane, to the front and to the back, at the size of the photo."""
    height, width = mask.shape
    scale = min(1.0, _RELIEF_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)) > 0.5
    relief = inflate(small)
    rows, columns = np.flatnonzero(small.any(axis=1)), np.flatnonzero(small.any(axis=0))
    extent = float(min(np.ptp(rows), np.ptp(columns)) + 1)
    if profile is None:
        front, back = relief, relief * 0.72
        natural = 0.82 * float(front.max() + back.max())
    else:
        front, back = (_follow(relief, rows, side) for side in profile)
        natural = float(front.max() + back.max())
    factor = np.clip(natural, _SHALLOWEST * extent, _DEEPEST * extent if profile is None else None) / max(
        float(front.max() + back.max()), 1e-6
    )
    factor = factor * fullness
    light = np.asarray(cv2.resize(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)) / 255.0
    calm = np.clip(relief / (0.12 * extent), 0, 1)
    front = front * factor + _features(light.astype(np.float32), small) * calm * (0.035 * extent)
    grow = [
        np.asarray(cv2.resize(side.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        for side in (front, back * factor)
    ]
    return grow[0] / scale, grow[1] / scale


def _features(light: Vectors, mask: Mask) -> Vectors:
    """Brightness against its surroundings within the subject, -1…1: brows stand out, eyes and folds lie deep."""
    weight = mask.astype(np.float32)

    def blur(sigma: float) -> Vectors:
        return ndimage.gaussian_filter(light * weight, sigma) / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-3)

    return np.tanh((blur(1.6) - blur(0.06 * max(light.shape))) * 3.0)


def _profiles(left: Image.Image | None, right: Image.Image | None) -> Vectors | None:
    """Reach to the front and to the back for 256 heights from top to foot, in heights of the model; or None."""
    reaches: list[Vectors] = []
    for view, front_on_left in ((left, True), (right, False)):
        if view is None:
            continue
        _, mask = _subject(view)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        first = mask.argmax(axis=1)
        last = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
        middle = float(np.median((first + last) / 2))
        reach = np.stack([middle - first, last - middle]) / mask.shape[0]
        reach = reach if front_on_left else reach[::-1]
        at = np.linspace(0, mask.shape[0] - 1, 256)
        reaches.append(np.stack([np.interp(at, np.arange(mask.shape[0]), side) for side in reach]))
    if not reaches:
        return None
    return ndimage.gaussian_filter1d(np.maximum(np.mean(reaches, axis=0), 0.02), 3.0, axis=1)


def _follow(relief: Vectors, rows: NDArray[np.int64], reach: Vectors) -> Vectors:
    """Scales each row so that its highest point has the reach that the side view shows."""
    followed = relief.copy()
    place = (rows - rows[0]) / max(int(rows[-1] - rows[0]), 1) * (reach.size - 1)
    wanted = np.interp(place, np.arange(reach.size), reach) * rows.size
    highest = np.maximum(relief[rows].max(axis=1), 0.5)
    followed[rows] *= (wanted / highest)[:, None].astype(np.float32)
    return ndimage.gaussian_filter1d(followed, 1.5, axis=0) * (relief > 0)


def _skin(photo: Pixels, mask: Mask, back: Image.Image | None, panels: Panels, size: int) -> Pixels:
    side = int(np.clip(size, *_TEXTURE_SIDES)) // 2 * 2
    box = (panels.left, panels.top, panels.left + panels.width, panels.top + panels.height)
    front = _crop(textures.extend(photo, mask), box)
    if panels.shared:
        return textures.compose(front, front[:, ::-1], panels=panels, size=side)
    if back is None:
        behind = _crop(textures.imagined_back(textures.extend(photo, mask), mask), box)[:, ::-1]
    else:
        back_photo, back_mask = _subject(back)
        rows, columns = np.flatnonzero(back_mask.any(axis=1)), np.flatnonzero(back_mask.any(axis=0))
        width, height = columns[-1] - columns[0] + 1.0, rows[-1] - rows[0] + 1.0
        # The same margin as the front's panel has, so that outline lies on outline.
        margin = 0.03 * max(panels.width, panels.height) / 1.06
        across, down = margin / (panels.width - 2 * margin) * width, margin / (panels.height - 2 * margin) * height
        back_box = (columns[0] - across, rows[0] - down, columns[-1] + 1 + across, rows[-1] + 1 + down)
        behind = _crop(textures.extend(back_photo, back_mask), back_box)
    return textures.compose(front, np.ascontiguousarray(behind), panels=panels, size=side)


def _crop(rgb: Pixels, box: tuple[float, float, float, float]) -> Pixels:
    """The part of a picture within `box` (left, top, right, bottom); beyond its frame the edge repeats."""
    left, top, right, bottom = box
    width, height = max(8, round(right - left)), max(8, round(bottom - top))
    across = np.array([[(right - left) / width, 0, left], [0, (bottom - top) / height, top]])
    warped = cv2.warpAffine(
        rgb, across, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.uint8)


def _pack(solid: Solid, skin: Pixels | None, *, pbr: bool) -> bytes:
    builder = GlbBuilder()
    attributes = {
        "POSITION": builder.attribute(solid.positions, bounds=True),
        "NORMAL": builder.attribute(solid.normals),
    }
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.85}
    material: dict[str, Any] = {"name": "sandbox", "pbrMetallicRoughness": surface}
    if skin is None:
        surface["baseColorFactor"] = [0.72, 0.7, 0.67, 1.0]
    else:
        attributes["TEXCOORD_0"] = builder.attribute(solid.uv)
        surface["baseColorTexture"] = {"index": builder.texture(textures.jpeg(skin), "image/jpeg", name="base color")}
    if skin is not None and pbr:
        normal, packed = textures.relief_maps(skin)
        attributes["TANGENT"] = builder.attribute(solid.tangents)
        surface["roughnessFactor"] = 1.0
        surface["metallicFactor"] = 1.0
        surface["metallicRoughnessTexture"] = {
            "index": builder.texture(textures.jpeg(packed), "image/jpeg", name="metallic roughness")
        }
        material["normalTexture"] = {"index": builder.texture(textures.jpeg(normal), "image/jpeg", name="normal")}
    primitive = {"attributes": attributes, "indices": builder.indices(solid.triangles), "material": 0, "mode": 4}
    builder.add("materials", material)
    builder.add("meshes", {"name": "subject", "primitives": [primitive]})
    builder.add("nodes", {"name": "sandbox model", "mesh": 0})
    builder.add("scenes", {"nodes": [0]})
    builder.document["scene"] = 0
    return builder.pack()
