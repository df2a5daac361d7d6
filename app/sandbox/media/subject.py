"""Which pixels of a picture show its subject.

Three kinds of picture, told apart by what they are: cut-outs carry it in their alpha; a plain backdrop is
modelled from the border; everything else is searched for what stands out (scene.py).
"""

from typing import Final

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

from app.sandbox.media.arrays import Field, Mask, Pixels
from app.sandbox.media.cutting import border, clean, grab_cut, largest, to_lab
from app.sandbox.media.scene import scene_subject
from app.sandbox.media.shapes import grown

_WORK_SIDE: Final = 420
_SHADOW_WEIGHT: Final = 0.4
_SURE_BACKDROP, _SURE_SUBJECT = 4.0, 13.0
"""Distances to the backdrop in CIELAB units; between them GrabCut decides."""


def subject_mask(picture: Image.Image) -> Mask:
    """True where the subject is: shape (height, width), one connected piece, never empty.

    Small holes are filled; large ones (the inside of a handle) stay where alpha or a plain backdrop shows them.
    When nothing stands out (a single colour, pure noise) the answer is a centred ellipse of 3/4 of each side.
    """
    alpha = alpha_of(picture)
    if alpha is not None:
        mask = clean(alpha >= 0.5, softness=0.002, keep_holes=True)
        return mask if _sensible(mask) else _ellipse(alpha.shape)
    rgb = np.asarray(picture.convert("RGB"))
    height, width = rgb.shape[:2]
    scale = min(1.0, _WORK_SIDE / max(height, width))
    small_size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(rgb, small_size, interpolation=cv2.INTER_AREA), np.uint8)
    found = _on_plain_backdrop(small)
    plain = found is not None
    mask = clean(found if found is not None else scene_subject(small), softness=0.005, keep_holes=plain)
    if not _sensible(mask):
        return _ellipse((height, width))
    full = cv2.resize(
        ndimage.gaussian_filter(mask.astype(np.float32), 1.0), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return largest(np.asarray(full) > 0.5)


def alpha_of(picture: Image.Image) -> Field | None:
    """Alpha as 0–1 when the picture really is a cut-out (0.5–99.5 % of it clear), else None."""
    if not picture.has_transparency_data:
        return None
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"), np.float32) / 255
    clear = float((alpha < 0.5).mean())
    return alpha if 0.005 <= clear <= 0.995 else None


def unlike_backdrop(away: Field) -> Field:
    """How far colours lie from the backdrop, given the differences in CIELAB; the last axis has 3.

    A soft shadow is darker in the same colour: darkness alone counts less than a change of colour.
    """
    lightness = np.where(away[..., 0] < 0, away[..., 0] * _SHADOW_WEIGHT, away[..., 0])
    return np.sqrt(lightness**2 + away[..., 1] ** 2 + away[..., 2] ** 2)


def _sensible(mask: Mask) -> bool:
    return 0.004 <= float(mask.mean()) <= 0.985


def _ellipse(shape: tuple[int, ...]) -> Mask:
    height, width = shape[:2]
    y, x = np.ogrid[:height, :width]
    reach_y, reach_x = max(0.375 * height, 0.6), max(0.375 * width, 0.6)
    return ((y - (height - 1) / 2) / reach_y) ** 2 + ((x - (width - 1) / 2) / reach_x) ** 2 <= 1


def _on_plain_backdrop(rgb: Pixels) -> Mask | None:
    lab = to_lab(np.asarray(cv2.GaussianBlur(rgb, (0, 0), 1.0), np.uint8))
    ring = border(lab.shape, 0.03)
    backdrop, agreeing = _backdrop_model(lab, ring)
    if agreeing < 0.7:
        return None
    distance = unlike_backdrop(lab - backdrop)
    sure = largest(distance > _SURE_SUBJECT)
    if not 0.002 <= float(sure.mean()) <= 0.97:
        return None
    reach = grown(sure, max(2, min(sure.shape) // 30))
    seeds = np.full(sure.shape, cv2.GC_BGD, np.uint8)
    seeds[reach & (distance > _SURE_BACKDROP)] = cv2.GC_PR_BGD
    seeds[reach & (distance > (_SURE_BACKDROP + _SURE_SUBJECT) / 2)] = cv2.GC_PR_FGD
    seeds[distance > _SURE_SUBJECT] = cv2.GC_FGD
    return grab_cut(rgb, seeds, rounds=2)


def _backdrop_model(lab: Field, ring: Mask) -> tuple[Field, float]:
    """A quadratic surface per channel through the border, and the share of the border that lies on it."""
    height, width = lab.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float32)
    rows, values = terms[ring], lab[ring]
    kept = np.linalg.norm(values - np.median(values, axis=0), axis=1) < 22
    for limit in (14.0, 9.0, 6.0):
        if kept.sum() < 40:
            return lab, 0.0
        # Few terms until the outliers are gone: a bent surface would bow to them.
        count = 6 if limit < 14 else 3
        weights = np.linalg.lstsq(rows[kept][:, :count], values[kept], rcond=None)[0]
        kept = np.linalg.norm(values - rows[:, :count] @ weights, axis=1) < limit
    return np.asarray(terms @ weights, np.float32), float(kept.mean())
