"""Textures of a model made from pictures: front panel, back panel, and maps of the fine relief."""

import io
from typing import Final

import cv2
import numpy as np
from PIL import Image

from app.sandbox.media.arrays import Mask, Pixels
from app.sandbox.media.filters import blur
from app.sandbox.media.shapes import depth, nearest, shrunk
from app.sandbox.media.solid import Panels

_JPEG_QUALITY: Final = 90
_RELIEF_SIDE: Final = 1024


def extend(rgb: Pixels, mask: Mask) -> Pixels:
    """The subject's colours carried on beyond its edge, so that no filter ever mixes in the backdrop."""
    # The outermost pixels are already mixed with the backdrop.
    core = shrunk(mask, max(1, round(max(mask.shape) / 400)))
    if not core.any():
        core = mask
    filled = rgb[nearest(core)]
    smooth = np.asarray(cv2.GaussianBlur(filled, (0, 0), max(rgb.shape) / 250), np.uint8)
    return np.where(core[..., None], rgb, smooth)


def imagined_back(rgb: Pixels, mask: Mask) -> Pixels:
    """A back for a picture that shows none: the front's broad colours, without its features, a little darker.

    At the outline it equals the front, so the two halves meet without a seam. Not mirrored.
    """
    sigma = 0.1 * max(rgb.shape)
    weight = mask.astype(np.float32)
    spread = blur(rgb * weight[..., None], sigma)
    broad = spread / np.maximum(blur(weight, sigma), 1e-3)[..., None]
    inside = depth(mask)
    blend = np.clip(inside / (0.05 * max(rgb.shape)), 0, 1)[..., None]
    # A trace of the front's grain keeps cloth and fur from turning into plastic.
    grain = rgb - blur(rgb.astype(np.float32), 3.0)
    back = rgb * (1 - blend) + (broad * 0.93 + grain * 0.35) * blend
    return np.clip(back, 0, 255).astype(np.uint8)


def compose(front: Pixels, back: Pixels, *, panels: Panels, size: int) -> Pixels:
    """The atlas, `size` pixels square. `front` and `back` are what the panels show, the back already mirrored."""
    panel = (size // 2, size) if panels.side_by_side else (size, size // 2)
    halves = [np.asarray(Image.fromarray(half).resize(panel, Image.Resampling.LANCZOS)) for half in (front, back)]
    return np.concatenate(halves, axis=1 if panels.side_by_side else 0)


def relief_maps(atlas: Pixels) -> tuple[Pixels, Pixels]:
    """(normal map, metallic-roughness map) from the atlas's brightness: grooves are dark, gloss is bright.

    At most 1024 pixels square: finer relief than that is noise of the photo.
    """
    side = min(_RELIEF_SIDE, atlas.shape[0])
    small = cv2.resize(atlas, (side, side), interpolation=cv2.INTER_AREA)
    light = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32) / 255
    broad, fine = blur(light, side / 120), blur(light, side / 1400)
    height = np.tanh((fine - broad) * 4) * (side / 320)
    down, right = np.gradient(height)
    normal = np.stack([-right, down, np.ones_like(height)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    rough = np.clip(0.78 - 0.35 * np.clip(fine - broad, -0.3, 0.5) - 0.12 * (fine - 0.5), 0.3, 0.95)
    # glTF reads roughness from green and metalness from blue; red is free for occlusion, here none.
    packed = np.stack([np.ones_like(rough), rough, np.zeros_like(rough)], axis=-1)
    return np.round(normal * 127.5 + 127.5).astype(np.uint8), np.round(packed * 255).astype(np.uint8)


def jpeg(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
