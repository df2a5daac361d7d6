"""Cutting a subject out: graph cuts, and tidying what they leave."""

import cv2
import numpy as np
from scipy import ndimage

from app.sandbox.media.arrays import Field, Mask, Pixels
from app.sandbox.media.shapes import closed, disc, opened, pieces, without_holes


def border(shape: tuple[int, ...], share: float) -> Mask:
    height, width = shape[:2]
    band = max(1, round(share * min(height, width)))
    ring = np.ones((height, width), bool)
    ring[band:-band, band:-band] = False
    return ring


def to_lab(rgb: Pixels) -> Field:
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def grab_cut(rgb: Pixels, seeds: Pixels, *, rounds: int) -> Mask:
    if not ((seeds & 1) == 1).any() or not ((seeds & 1) == 0).any():
        return (seeds & 1) == 1
    cv2.setRNGSeed(7)  # k-means inside GrabCut draws from it: equal pictures must give equal masks
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    model = np.zeros((1, 65)), np.zeros((1, 65))
    cut, _, _ = cv2.grabCut(bgr, seeds, None, model[0], model[1], rounds, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return (np.asarray(cut) & 1) == 1


def clean(mask: Mask, *, softness: float, keep_holes: bool) -> Mask:
    """One smooth piece; `softness` is the blur as a share of the longer side."""
    sigma = max(0.6, softness * max(mask.shape))
    brush = disc(round(sigma))
    mask = largest(opened(mask, brush))
    solid = without_holes(closed(mask, brush))
    if keep_holes:
        holes, count = pieces(solid & ~mask)
        sizes = np.bincount(holes.ravel(), minlength=count + 1)
        large = sizes >= 0.01 * solid.sum()
        large[0] = False
        solid = solid & ~large[holes]
    # Reflecting keeps a subject that the frame cuts off at full width.
    smooth = ndimage.gaussian_filter(solid.astype(np.float32), sigma, mode="nearest") > 0.5
    return largest(np.asarray(smooth, bool))


def largest(mask: Mask) -> Mask:
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
