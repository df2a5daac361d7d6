"""Triangles that fill a silhouette: a regular grid whose outline follows the mask's edge.

Grid points that lie near the edge move onto it before cells are cut (snap, then march), so no sliver is left.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from app.sandbox.media.arrays import Field, Mask, Triangles, Vectors
from app.sandbox.media.shapes import depth

_SNAP: Final = 0.34
"""Share of a cell edge within which a grid point moves onto the outline."""


@dataclass(frozen=True, slots=True)
class Sheet:
    points: Vectors
    """Shape (n, 2): x, y in pixels, y downwards."""
    triangles: Triangles
    """Shape (m, 3), counter-clockwise for a viewer with y upwards."""
    outline: Triangles
    """Shape (k, 2): directed edges that only one triangle has; each point on the outline starts exactly one."""


def signed_distance(mask: Mask, *, smoothing: float) -> Field:
    """Distance to the mask's edge in pixels, positive inside; beyond the frame all is outside.

    `smoothing` is the sigma, in pixels, that rounds off the stairs of the pixel grid.
    """
    wide = np.pad(mask, 2)
    signed = np.where(wide, depth(wide) - 0.5, 0.5 - depth(~wide)).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(signed, smoothing), np.float32)[1:-1, 1:-1]


def fill(distance: Field, *, cell: float) -> Sheet:
    """Triangulates where `distance` is positive with cells of `cell` pixels.

    `distance` has a border of one pixel that the picture has not; points are in the picture's pixels.
    The sheet is empty when nothing is left at this coarseness.
    """
    points, values, squares = _grid(distance, cell)
    points, values = _snap(points, values, squares)
    kept, cut_points = _march(points, values, squares)
    sheet = _tidy(np.concatenate([points, cut_points]), kept)
    return Sheet(sheet.points - 1.0, sheet.triangles, sheet.outline)


def sample(field: Field, points: Vectors) -> Vectors:
    """Bilinear values of `field` at x, y."""
    return np.asarray(ndimage.map_coordinates(field, [points[:, 1], points[:, 0]], order=1, mode="nearest"), np.float64)


def _grid(distance: Field, cell: float) -> tuple[Vectors, Vectors, Triangles]:
    height, width = distance.shape
    # One grid point on the thickest place: it keeps the coarsest grid from missing everything.
    peak_y, peak_x = np.unravel_index(int(distance.argmax()), distance.shape)
    x = _ticks(float(peak_x), cell, width)
    y = _ticks(float(peak_y), cell, height)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    number = np.arange(points.shape[0]).reshape(y.size, x.size)
    corners = np.stack([number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]], axis=-1).reshape(-1, 4)
    values = sample(distance, points)
    values[(points < 0).any(axis=1) | (points[:, 0] > width - 1) | (points[:, 1] > height - 1)] = -cell
    flip = (np.add.outer(np.arange(y.size - 1), np.arange(x.size - 1)) % 2).reshape(-1).astype(bool)
    # Alternating diagonals: no direction is preferred by the shading.
    a, b, c, d = corners.T
    first = np.where(flip[:, None], np.stack([a, b, d], 1), np.stack([a, b, c], 1))
    second = np.where(flip[:, None], np.stack([b, c, d], 1), np.stack([a, c, d], 1))
    return points, values, np.concatenate([first, second])


def _ticks(through: float, cell: float, length: int) -> Vectors:
    before = int(np.ceil(through / cell)) + 1
    after = int(np.ceil((length - 1 - through) / cell)) + 1
    return through + cell * np.arange(-before, after + 1)


def _edges(triangles: Triangles) -> Triangles:
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])


def _snap(points: Vectors, values: Vectors, triangles: Triangles) -> tuple[Vectors, Vectors]:
    edges = np.unique(np.sort(_edges(triangles), axis=1), axis=0)
    crossing = edges[(values[edges[:, 0]] > 0) != (values[edges[:, 1]] > 0)]
    start = np.concatenate([crossing[:, 0], crossing[:, 1]])
    end = np.concatenate([crossing[:, 1], crossing[:, 0]])
    share = values[start] / (values[start] - values[end])
    order = np.lexsort((end, share, start))
    start, end, share = start[order], end[order], share[order]
    chosen, first = np.unique(start, return_index=True)
    near = share[first] < _SNAP
    moved = chosen[near]
    target = points[moved] + (points[end[first][near]] - points[moved]) * share[first][near, None]
    points, values = points.copy(), values.copy()
    points[moved] = target
    values[moved] = 0.0
    return points, values


def _march(points: Vectors, values: Vectors, triangles: Triangles) -> tuple[Triangles, Vectors]:
    inside, outside = values > 0, values < 0
    positives, negatives = inside[triangles].sum(axis=1), outside[triangles].sum(axis=1)
    whole = triangles[(positives > 0) & (negatives == 0)]
    mixed = triangles[(positives > 0) & (negatives > 0)]
    # Turned so that the corner that stands alone on its side comes first.
    lone_inside = (inside[mixed].sum(axis=1) == 1) & (outside[mixed].sum(axis=1) == 2)
    touching = (inside[mixed].sum(axis=1) == 1) & (outside[mixed].sum(axis=1) == 1)
    sign = np.where(
        lone_inside[:, None], inside[mixed], np.where(touching[:, None], values[mixed] == 0, outside[mixed])
    )
    turned = np.take_along_axis(mixed, (np.argmax(sign, axis=1)[:, None] + np.arange(3)) % 3, axis=1)
    pairs = np.sort(_edges(mixed), axis=1)
    pairs = np.unique(pairs[inside[pairs].any(axis=1) & outside[pairs].any(axis=1)], axis=0)
    share = values[pairs[:, 0]] / (values[pairs[:, 0]] - values[pairs[:, 1]])
    cuts = points[pairs[:, 0]] + (points[pairs[:, 1]] - points[pairs[:, 0]]) * share[:, None]
    codes = pairs[:, 0] * points.shape[0] + pairs[:, 1]

    def cut(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
        wanted = np.minimum(one, other) * points.shape[0] + np.maximum(one, other)
        return points.shape[0] + np.searchsorted(codes, wanted)

    a, b, c = turned[lone_inside].T
    parts = [whole, np.stack([a, cut(a, b), cut(a, c)], axis=1)]
    zero, b, c = turned[touching].T
    b_inside = inside[b]
    middle = cut(b, c)
    parts.append(np.where(b_inside[:, None], np.stack([zero, b, middle], 1), np.stack([zero, middle, c], 1)))
    a, b, c = turned[~lone_inside & ~touching].T
    ab, ac = cut(a, b), cut(a, c)
    parts += [np.stack([ab, b, c], axis=1), np.stack([ab, c, ac], axis=1)]
    return np.concatenate(parts), cuts


def _tidy(points: Vectors, triangles: Triangles) -> Sheet:
    """Drops what is unused, splits points where two corners only touch, and finds the outline."""
    triangles = _largest_piece(triangles, points.shape[0])
    points, triangles = _split_pinches(points, triangles)
    used, compact = np.unique(triangles, return_inverse=True)
    triangles = compact.reshape(-1, 3)
    return Sheet(points[used], triangles, _outline(triangles))


def _outline(triangles: Triangles) -> Triangles:
    edges = _edges(triangles)
    size = int(triangles.max()) + 1 if triangles.size else 0
    forward, backward = edges[:, 0] * size + edges[:, 1], edges[:, 1] * size + edges[:, 0]
    return edges[~np.isin(forward, backward)]


def _largest_piece(triangles: Triangles, count: int) -> Triangles:
    """Keeps the piece with most triangles; pieces hang together by edges."""
    if not len(triangles):
        return triangles
    edges = np.sort(_edges(triangles), axis=1)
    codes = edges[:, 0] * count + edges[:, 1]
    face = np.tile(np.arange(len(triangles)), 3)
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    labels = _components(len(triangles), face[order][:-1][same], face[order][1:][same])
    return triangles[labels == int(np.bincount(labels).argmax())]


def _components(count: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    links = coo_matrix((np.ones(one.size, np.int8), (one, other)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def _split_pinches(points: Vectors, triangles: Triangles) -> tuple[Vectors, Triangles]:
    """Gives each fan of triangles around a point its own copy, so the closed solid has no pinched vertex."""
    edges = _outline(triangles)
    starts = np.bincount(edges[:, 0], minlength=len(points))
    for pinch in np.flatnonzero(starts > 1):
        around = np.flatnonzero((triangles == pinch).any(axis=1))
        others = [{int(one) for one in triangles[face]} - {int(pinch)} for face in around]
        fans: list[tuple[set[int], list[int]]] = []
        for face, corners in zip(around, others, strict=True):
            joined = [fan for fan in fans if fan[0] & corners]
            fans = [fan for fan in fans if not fan[0] & corners]
            fans.append(
                (corners.union(*(fan[0] for fan in joined)), [int(face), *(one for fan in joined for one in fan[1])])
            )
        for _, faces in fans[1:]:
            rows = triangles[faces]
            rows[rows == pinch] = len(points)
            triangles = triangles.copy()
            triangles[faces] = rows
            points = np.concatenate([points, points[pinch][None]])
    return points, triangles
