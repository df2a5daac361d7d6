"""Height above a flat silhouette: every thin part becomes a round rod, every disc a ball."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from app.sandbox.media.arrays import Field, Mask

_SOLVE_SIDE: Final = 150
_SMOOTHING_ROUNDS: Final = 40


def inflate(mask: Mask) -> Field:
    """Height in pixels of `mask`, 0 outside.

    Solves laplace(u) = -2 with u = 0 on the outline and returns sqrt(u): half the width in the middle of a
    long strip, 0.7 of the radius in the middle of a disc. Coarse direct solution, then relaxation at full size.
    """
    height, width = mask.shape
    step = max(1, -(-max(height, width) // _SOLVE_SIDE))
    padded = np.pad(mask, ((0, -height % step), (0, -width % step)))
    coarse = padded.reshape(padded.shape[0] // step, step, -1, step).mean(axis=(1, 3), dtype=np.float32) >= 0.5
    solution = _solve(coarse) * float(step * step)
    if step == 1:
        return np.sqrt(solution)
    full = np.asarray(ndimage.zoom(solution, step, order=1, grid_mode=True, mode="nearest"), np.float32)[
        :height, :width
    ]
    inside = mask.astype(np.float32)
    # The cap keeps thin parts that the coarse grid has missed from sinking and the rim from jumping up.
    full = np.maximum(full, 0.5) * inside
    edge = np.pad(inside, 1)
    for _ in range(_SMOOTHING_ROUNDS):
        wide = np.pad(full, 1) * edge
        full = inside * (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] + 2.0) / 4
    return np.sqrt(full)


def _solve(mask: Mask) -> Field:
    solution = np.zeros(mask.shape, np.float32)
    count = int(mask.sum())
    if count == 0:
        return solution
    number = np.full((mask.shape[0] + 2, mask.shape[1] + 2), -1, np.int32)
    number[1:-1, 1:-1][mask] = np.arange(count)
    rows: list[NDArray[np.int32]] = []
    columns: list[NDArray[np.int32]] = []
    centre = number[1:-1, 1:-1][mask]
    for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
        neighbour = number[down : down + mask.shape[0], right : right + mask.shape[1]][mask]
        linked = neighbour >= 0
        rows.append(centre[linked])
        columns.append(neighbour[linked])
    row, column = np.concatenate(rows), np.concatenate(columns)
    links = sparse.coo_matrix((np.full(row.size, -1.0), (row, column)), shape=(count, count))
    system = sparse.csc_matrix(links + sparse.identity(count) * 4.0)
    solution[mask] = np.maximum(np.asarray(spsolve(system, np.full(count, 2.0)), np.float32), 0.0)
    return solution


def normals_of(height: Field, *, mask: Mask | None = None) -> Field:
    """Unit normals (x right, y up, z to the viewer) of a height field in pixels; shape (h, w, 3)."""
    down, right = np.gradient(height)
    normal = np.stack([-right, down, np.ones_like(height)], axis=-1).astype(np.float32)
    if mask is not None:
        normal[~mask] = (0.0, 0.0, 1.0)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)
