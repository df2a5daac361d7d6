"""Which pixels of a picture show its subject.

Three kinds of picture, told apart by what they are: cut-outs carry it in their alpha; a plain backdrop is
modelled from the border; everything else goes through GrabCut, seeded by which regions the border owns
(boundary connectivity, Zhu et al., CVPR 2014) and how far they lie from the centre.
"""

from typing import Final

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.segmentation import slic

from app.sandbox.media.arrays import Field, Mask, Pixels
from app.sandbox.media.shapes import closed, disc, grown, opened, pieces, without_holes

_WORK_SIDE: Final = 420
_REGION_SIDE: Final = 220
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
        mask = _clean(alpha >= 0.5, softness=0.002, keep_holes=True)
        return mask if _sensible(mask) else _ellipse(alpha.shape)
    rgb = np.asarray(picture.convert("RGB"))
    height, width = rgb.shape[:2]
    scale = min(1.0, _WORK_SIDE / max(height, width))
    small_size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(rgb, small_size, interpolation=cv2.INTER_AREA), np.uint8)
    found = _on_plain_backdrop(small)
    plain = found is not None
    mask = _clean(found if found is not None else _in_a_scene(small), softness=0.005, keep_holes=plain)
    if not _sensible(mask):
        return _ellipse((height, width))
    full = cv2.resize(
        ndimage.gaussian_filter(mask.astype(np.float32), 1.0), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return _largest(np.asarray(full) > 0.5)


def alpha_of(picture: Image.Image) -> Field | None:
    """Alpha as 0–1 when the picture really is a cut-out (0.5–99.5 % of it clear), else None."""
    if not picture.has_transparency_data:
        return None
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"), np.float32) / 255
    clear = float((alpha < 0.5).mean())
    return alpha if 0.005 <= clear <= 0.995 else None


def _sensible(mask: Mask) -> bool:
    return 0.004 <= float(mask.mean()) <= 0.985


def _ellipse(shape: tuple[int, ...]) -> Mask:
    height, width = shape[:2]
    y, x = np.ogrid[:height, :width]
    reach_y, reach_x = max(0.375 * height, 0.6), max(0.375 * width, 0.6)
    return ((y - (height - 1) / 2) / reach_y) ** 2 + ((x - (width - 1) / 2) / reach_x) ** 2 <= 1


def _border(shape: tuple[int, ...], share: float) -> Mask:
    height, width = shape[:2]
    band = max(1, round(share * min(height, width)))
    ring = np.ones((height, width), bool)
    ring[band:-band, band:-band] = False
    return ring


def _lab(rgb: Pixels) -> Field:
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def _on_plain_backdrop(rgb: Pixels) -> Mask | None:
    lab = _lab(np.asarray(cv2.GaussianBlur(rgb, (0, 0), 1.0), np.uint8))
    ring = _border(lab.shape, 0.03)
    backdrop, agreeing = _backdrop_model(lab, ring)
    if agreeing < 0.7:
        return None
    away = lab - backdrop
    # A soft shadow is darker in the same colour: darkness alone counts less than a change of colour.
    lightness = np.where(away[..., 0] < 0, away[..., 0] * _SHADOW_WEIGHT, away[..., 0])
    distance = np.sqrt(lightness**2 + away[..., 1] ** 2 + away[..., 2] ** 2)
    sure = _largest(distance > _SURE_SUBJECT)
    if not 0.002 <= float(sure.mean()) <= 0.97:
        return None
    reach = grown(sure, max(2, min(sure.shape) // 30))
    seeds = np.full(sure.shape, cv2.GC_BGD, np.uint8)
    seeds[reach & (distance > _SURE_BACKDROP)] = cv2.GC_PR_BGD
    seeds[reach & (distance > (_SURE_BACKDROP + _SURE_SUBJECT) / 2)] = cv2.GC_PR_FGD
    seeds[distance > _SURE_SUBJECT] = cv2.GC_FGD
    return _grab_cut(rgb, seeds, rounds=2)


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


def _in_a_scene(rgb: Pixels) -> Mask:
    height, width = rgb.shape[:2]
    salience = np.asarray(cv2.resize(_salience(rgb), (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    seeds = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    inner = salience[~_border(rgb.shape, 0.04)]
    middle = float(np.quantile(inner, 0.66))
    seeds[salience > middle] = cv2.GC_PR_FGD
    seeds[salience > float(np.quantile(inner, 0.95))] = cv2.GC_FGD
    seeds[salience < float(np.quantile(salience, 0.3))] = cv2.GC_BGD
    # People and things on tables often run out of the picture at its foot, hardly ever at the other sides.
    edge = _border(rgb.shape, 0.012)
    edge[-max(2, height // 80) :, width // 8 : -width // 8] = False
    seeds[edge] = cv2.GC_BGD
    return _grab_cut(rgb, seeds, rounds=5)


def _salience(rgb: Pixels) -> Field:
    height, width = rgb.shape[:2]
    scale = min(1.0, _REGION_SIDE / max(height, width))
    small = np.asarray(
        cv2.resize(rgb, (max(8, round(width * scale)), max(8, round(height * scale))), interpolation=cv2.INTER_AREA),
        np.uint8,
    )
    labels = np.asarray(slic(small, n_segments=220, compactness=12.0, start_label=0, channel_axis=-1))
    count = int(labels.max()) + 1
    flat = labels.ravel()
    size = np.bincount(flat, minlength=count).astype(np.float64)
    lab = _lab(small).reshape(-1, 3)
    y, x = np.mgrid[: small.shape[0], : small.shape[1]]
    diagonal = float(np.hypot(*small.shape[:2]))
    features = [*lab.T, x.ravel() / diagonal, y.ravel() / diagonal]
    means = np.stack([np.bincount(flat, feature, count) / size for feature in features], axis=-1)
    colour, place = means[:, :3], means[:, 3:]
    colour_gap = np.linalg.norm(colour[:, None] - colour[None], axis=-1)
    near = np.exp(-(np.linalg.norm(place[:, None] - place[None], axis=-1) ** 2) / (2 * 0.25**2))
    alike = np.exp(-(colour_gap**2) / (2 * 9.0**2))
    on_border = np.bincount(flat, _border(small.shape, 0.02).ravel(), count)
    span = alike @ size
    owned = (alike @ on_border) / np.sqrt(span)
    backdrop = 1 - np.exp(-(owned**2) / 2.0)
    contrast = (colour_gap * near) @ (backdrop * size) / size.sum()
    centre = np.array([small.shape[1], small.shape[0]]) / (2 * diagonal)
    pull = np.exp(-((np.linalg.norm((place - centre) * [1.0, 0.85], axis=1) / 0.27) ** 2) / 2)
    score = (contrast / max(float(contrast.max()), 1e-6) * (1 - 0.6 * backdrop) + 0.35) * pull
    return np.asarray(cv2.GaussianBlur(score[labels].astype(np.float32), (0, 0), 2.0), np.float32)


def _grab_cut(rgb: Pixels, seeds: Pixels, *, rounds: int) -> Mask:
    if not ((seeds & 1) == 1).any() or not ((seeds & 1) == 0).any():
        return (seeds & 1) == 1
    cv2.setRNGSeed(7)  # k-means inside GrabCut draws from it: equal pictures must give equal masks
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    model = np.zeros((1, 65)), np.zeros((1, 65))
    cut, _, _ = cv2.grabCut(bgr, seeds, None, model[0], model[1], rounds, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return (np.asarray(cut) & 1) == 1


def _clean(mask: Mask, *, softness: float, keep_holes: bool) -> Mask:
    """One smooth piece; `softness` is the blur as a share of the longer side."""
    sigma = max(0.6, softness * max(mask.shape))
    brush = disc(round(sigma))
    mask = _largest(opened(mask, brush))
    solid = without_holes(closed(mask, brush))
    if keep_holes:
        holes, count = pieces(solid & ~mask)
        sizes = np.bincount(holes.ravel(), minlength=count + 1)
        large = sizes >= 0.01 * solid.sum()
        large[0] = False
        solid = solid & ~large[holes]
    # Reflecting keeps a subject that the frame cuts off at full width.
    smooth = ndimage.gaussian_filter(solid.astype(np.float32), sigma, mode="nearest") > 0.5
    return _largest(np.asarray(smooth, bool))


def _largest(mask: Mask) -> Mask:
    """The largest piece; a piece counts less the farther it lies from the centre."""
    labels, count = pieces(mask)
    if count <= 1:
        return mask
    height, width = mask.shape
    y, x = np.mgrid[:height, :width]
    off_centre = ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2) / 0.18
    weight = np.bincount(labels.ravel(), np.exp(-off_centre).ravel(), count + 1)
    weight[0] = 0
    return labels == int(weight.argmax())
