"""Whole-shape operations on masks, with the types that SciPy's stubs leave open."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.sandbox.media.arrays import Field, Mask


def disc(radius: int) -> Mask:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), bool)


def grown(mask: Mask, steps: int = 1) -> Mask:
    return np.asarray(ndimage.binary_dilation(mask, iterations=steps), bool)


def shrunk(mask: Mask, steps: int = 1) -> Mask:
    """The frame's edge counts as inside: a subject that it cuts off keeps its width there."""
    return np.asarray(ndimage.binary_erosion(mask, iterations=steps, border_value=1), bool)


def opened(mask: Mask, by: Mask) -> Mask:
    return np.asarray(ndimage.binary_opening(mask, by), bool)


def closed(mask: Mask, by: Mask) -> Mask:
    margin = by.shape[0]
    wide = np.pad(mask, margin).astype(np.uint8)
    result = np.asarray(cv2.morphologyEx(wide, cv2.MORPH_CLOSE, by.astype(np.uint8)), bool)
    return result[margin:-margin, margin:-margin]


def without_holes(mask: Mask) -> Mask:
    return np.asarray(ndimage.binary_fill_holes(mask), bool)


def pieces(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """(number of the piece per pixel, 0 outside; count). Pieces hang together by sides, not by corners."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return np.asarray(labels, np.int32), count - 1


def nearest(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(rows, columns) of the nearest True pixel for every pixel; `mask` must have one."""
    found = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    indices = np.asarray(found, np.int32)
    return indices[0], indices[1]


def depth(mask: Mask) -> Field:
    """Distance in pixels to the nearest False pixel, 0 outside."""
    return np.asarray(ndimage.distance_transform_edt(mask), np.float32)
