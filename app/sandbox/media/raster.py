"""Which triangle is seen at which pixel: a z-buffer in whole-array steps."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.sandbox.media.arrays import Vectors

_CHUNK: Final = 3_000_000
_MAX_CANDIDATES: Final = 200_000_000
_EMPTY: Final = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Hits:
    """What is seen, one row per covered pixel."""

    pixels: NDArray[np.int64]
    """Flat indices (y * width + x)."""
    faces: NDArray[np.int64]
    weights: Vectors
    """Shape (n, 3): shares of the three corners on the screen (not corrected for perspective)."""


def rasterise(points: Vectors, depth: Vectors, triangles: NDArray[np.int64], *, width: int, height: int) -> Hits:
    """The nearest (smallest `depth`) triangle at every pixel centre.

    `points` are x, y in pixels. Raises ValueError when triangles overlap so much that drawing would never end.
    """
    corners = points[triangles]
    low = np.maximum(np.ceil(corners.min(axis=1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(axis=1) - 0.5), [width - 1, height - 1]).astype(np.int64)
    size = high - low + 1
    twice_area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    drawn = np.flatnonzero((size > 0).all(axis=1) & (np.abs(twice_area) > 1e-12))
    # Boxes of like size are searched together, each within the next power of two.
    side = np.ones_like(size)
    side[drawn] = 1 << np.ceil(np.log2(size[drawn])).astype(np.int64)
    if int(np.prod(side[drawn], axis=1).sum()) > _MAX_CANDIDATES:
        raise ValueError("the model's triangles overlap too much to be drawn")
    near, far = float(depth.min()), float(depth.max())
    level = (depth - near) / max(far - near, 1e-12) * 0xFFFFFFFE
    best = np.full(width * height, _EMPTY, np.uint64)
    shapes = np.unique(side[drawn], axis=0)
    for across, down in shapes:
        group = drawn[(side[drawn] == (across, down)).all(axis=1)]
        step = max(1, _CHUNK // int(across * down))
        for start in range(0, len(group), step):
            _draw(
                group[start : start + step], int(across), int(down), corners, low, high, level[triangles], best, width
            )
    pixels = np.flatnonzero(best != _EMPTY)
    faces = (best[pixels] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    centre = np.stack([pixels % width, pixels // width], axis=1) + 0.5
    return Hits(pixels, faces, _weights(corners[faces], centre, twice_area[faces]).astype(np.float32))


def _draw(
    group: NDArray[np.int64],
    across: int,
    down: int,
    corners: Vectors,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    level: Vectors,
    best: NDArray[np.uint64],
    width: int,
) -> None:
    offset = np.stack(np.meshgrid(np.arange(across), np.arange(down)), axis=-1).reshape(1, -1, 2)
    x = low[group, 0, None] + offset[..., 0]
    y = low[group, 1, None] + offset[..., 1]
    a, b, c = (corners[group, corner][:, None] for corner in range(3))
    px, py = x + 0.5, y + 0.5
    first = (b[..., 0] - px) * (c[..., 1] - py) - (b[..., 1] - py) * (c[..., 0] - px)
    second = (c[..., 0] - px) * (a[..., 1] - py) - (c[..., 1] - py) * (a[..., 0] - px)
    total = _cross(b - a, c - a)
    first, second = first / total, second / total
    third = 1 - first - second
    inside = (
        (first >= -1e-9)
        & (second >= -1e-9)
        & (third >= -1e-9)
        & (x <= high[group, 0, None])
        & (y <= high[group, 1, None])
    )
    row, column = np.nonzero(inside)
    corner_level = level[group][row]
    value = (
        corner_level[:, 0] * first[row, column]
        + corner_level[:, 1] * second[row, column]
        + corner_level[:, 2] * third[row, column]
    )
    key = np.clip(value, 0, 0xFFFFFFFE).astype(np.uint64) << np.uint64(32) | group[row].astype(np.uint64)
    np.minimum.at(best, y[row, column] * width + x[row, column], key)


def _weights(corners: Vectors, centre: Vectors, twice_area: Vectors) -> Vectors:
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    first = _cross(b - centre, c - centre) / twice_area
    second = _cross(c - centre, a - centre) / twice_area
    return np.clip(np.stack([first, second, 1 - first - second], axis=1), 0.0, 1.0)


def _cross(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
