"""A closed solid from a flat sheet: raised to the front, raised to the back, joined by a thin wall.

Vectors of one index have one texture coordinate, so the surface is closed by its indices alone and needs no
merging by position. The change from the front half of the atlas to the back half happens inside the wall, in a
strip of half a thousandth of the height, which no picture shows.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.sandbox.media.arrays import Triangles, Vectors
from app.sandbox.media.meshing import Sheet

STRIP: Final = 0.00025
"""Half the height of the strip in metres."""


@dataclass(frozen=True, slots=True)
class Solid:
    positions: Vectors
    """Metres, y up, front to +z, x and z centred, standing on y = 0, height 1."""
    normals: Vectors
    uv: Vectors
    tangents: Vectors
    """Shape (n, 4); w is the sign of the bitangent."""
    triangles: Triangles


@dataclass(frozen=True, slots=True)
class Panels:
    """Where a point of the picture lies in the atlas: two panels beside or above each other."""

    left: float
    top: float
    width: float
    height: float
    """The part of the picture that a panel shows, in pixels of the picture."""
    side_by_side: bool
    shared: bool
    """The back uses the front's panel."""

    def place(self, points: Vectors, *, back: bool) -> Vectors:
        across = (points[:, 0] - self.left) / self.width
        down = (points[:, 1] - self.top) / self.height
        if not back or self.shared:
            first = np.stack([across, down], axis=1)
            return self._half(first, second=False)
        return self._half(np.stack([1 - across, down], axis=1), second=True)

    def _half(self, uv: Vectors, *, second: bool) -> Vectors:
        axis = 0 if self.side_by_side else 1
        placed = np.clip(uv, 0.0, 1.0)
        placed[:, axis] = placed[:, axis] / 2 + (0.5 if second else 0.0)
        return placed.astype(np.float32)


def raise_sheet(sheet: Sheet, *, front: Vectors, back: Vectors, rim: float, panels: Panels) -> Solid:
    """`front` and `back` are heights above the middle plane per point, `rim` half the wall's height; in pixels."""
    low, high = sheet.points.min(axis=0), sheet.points.max(axis=0)
    scale = 1.0 / (high[1] - low[1])
    flat = np.stack([(sheet.points[:, 0] - (low[0] + high[0]) / 2) * scale, (high[1] - sheet.points[:, 1]) * scale], 1)
    ring = sheet.outline[:, 0]
    floor = max(rim * scale, 4 * STRIP)
    layers = [(flat, np.maximum(front * scale, floor)), (flat, -np.maximum(back * scale, floor))]
    layers[0][1][ring], layers[1][1][ring] = floor, -floor
    uvs = [panels.place(sheet.points, back=False), panels.place(sheet.points, back=True)]
    if not panels.shared:
        layers += [(flat[ring], np.full(ring.size, STRIP)), (flat[ring], np.full(ring.size, -STRIP))]
        uvs += [uvs[0][ring], uvs[1][ring]]
    positions = np.concatenate([np.column_stack(layer) for layer in layers])
    positions[:, 2] -= (positions[:, 2].min() + positions[:, 2].max()) / 2
    positions = positions.astype(np.float32)
    triangles = np.concatenate([sheet.triangles, sheet.triangles[:, ::-1] + flat.shape[0], _wall(sheet, panels)])
    normals = vertex_normals(positions, triangles)
    half = np.ones(positions.shape[0], np.float32)
    half[flat.shape[0] : 2 * flat.shape[0]] = 1.0 if panels.shared else -1.0
    half[2 * flat.shape[0] + ring.size :] = -1.0
    return Solid(positions, normals, np.concatenate(uvs), _tangents(normals, half), triangles)


def _wall(sheet: Sheet, panels: Panels) -> Triangles:
    count, ring_size = sheet.points.shape[0], sheet.outline.shape[0]
    start, end = sheet.outline.T
    ring_of = np.zeros(count, np.int64)
    ring_of[start] = np.arange(ring_size)
    front, back = np.stack([start, end]), np.stack([start, end]) + count
    if panels.shared:
        return _band(front, back)
    upper = ring_of[np.stack([start, end])] + 2 * count
    return np.concatenate([_band(front, upper), _band(upper, upper + ring_size), _band(upper + ring_size, back)])


def _band(above: Triangles, below: Triangles) -> Triangles:
    return np.concatenate(
        [np.stack([above[1], above[0], below[0]], axis=1), np.stack([above[1], below[0], below[1]], axis=1)]
    )


def vertex_normals(positions: Vectors, triangles: Triangles) -> Vectors:
    """Unit normals, each triangle weighted by its area; shape (n, 3)."""
    a, b, c = (positions[triangles[:, corner]].astype(np.float64) for corner in range(3))
    facing = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(triangles.ravel(), np.repeat(facing[:, axis], 3), minlength=len(positions)) for axis in range(3)],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    total = np.where(length > 1e-14, total / np.maximum(length, 1e-14), (0.0, 0.0, 1.0))
    return total.astype(np.float32)


def _tangents(normals: Vectors, half: Vectors) -> Vectors:
    """Along growing u: +x on the front panel, -x on the back panel; up in the picture is +y on both."""
    along = np.zeros_like(normals, np.float64)
    along[:, 0] = half
    along -= normals * np.sum(along * normals, axis=1, keepdims=True)
    # Where the surface faces sideways, x lies along the normal: go around the upright axis instead.
    around = np.stack([normals[:, 2], np.zeros(len(normals)), -normals[:, 0]], axis=1) + 1e-9
    weak = np.linalg.norm(along, axis=1) < 0.15
    along[weak] = around[weak]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    sign = np.ones((len(normals), 1))
    return np.concatenate([along, sign], axis=1).astype(np.float32)
