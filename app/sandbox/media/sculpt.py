"""Bodies put together from simple solids, and a picture of them: signed distances, marched along parallel rays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.sandbox.media.arrays import Field, Vectors
from app.sandbox.media.shapes import grown

Triple: TypeAlias = tuple[float, float, float]

Rng: TypeAlias = np.random.Generator

MAIN, SECOND, ACCENT, DARK, LIGHT = range(5)
"""Palette: three colours of the prompt, a near-black, a near-white."""
_COARSE: Final = 150
_REACH: Final = 2.6
"""Half the cube, around (0, 1, 0), that bodies must fit in."""


@dataclass(frozen=True, slots=True)
class Solid:
    """One simple solid; lengths in units of about half a body."""

    kind: Literal["ellipsoid", "box", "cone", "limb", "torus"]
    at: Triple
    size: tuple[float, ...]
    """ellipsoid: radii; box: half sides; cone: bottom radius, half height, top radius; torus: radius, thickness
    (around y); limb: dx, dy, dz to its end, radius at the start, radius at the end."""
    colour: int = 0
    """Index into the palette."""
    blend: float = 0.04
    """How softly it flows into what came before."""
    turn: Triple = (0.0, 0.0, 0.0)
    """Degrees around x, then y, then z."""
    mirrored: bool = False
    """Also at -x."""
    round: float = 0.03
    carve: bool = False
    """Taken away instead of added."""


Builder: TypeAlias = Callable[[Rng], list[Solid]]


@dataclass(frozen=True, slots=True)
class Portrait:
    """What a ray through each pixel meets, shape (h, w, …)."""

    alpha: Field
    points: Vectors
    """The body's own coordinates."""
    normals: Vectors
    """x right, y up, z to the viewer."""
    colours: Vectors
    openness: Field
    """Share of the sky that is seen, 0–1."""


@dataclass(slots=True)
class Body:
    solids: Sequence[Solid]
    palette: Vectors
    """Shape (n, 3)."""
    _turns: list[Vectors] = field(init=False)

    def __post_init__(self) -> None:
        self._turns = [_rotation(solid.turn) for solid in self.solids]

    def distance(self, points: Vectors) -> Field:
        return self._measure(points, None)

    def coloured(self, points: Vectors) -> tuple[Field, Vectors]:
        colour = np.zeros((len(points), 3), np.float32)
        return self._measure(points, colour), colour

    def _measure(self, points: Vectors, colour: Vectors | None) -> Field:
        """Distances; fills in `colour` where it is given."""
        total = np.full(len(points), 9.0, np.float32)
        folded = np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], axis=1)
        for solid, turn in zip(self.solids, self._turns, strict=True):
            place = folded if solid.mirrored else points
            middle, girth = _hull(solid, turn)
            # Most points are farther from this solid than from one before it: they need no exact distance.
            bound = _length(place - middle) - girth
            close = np.flatnonzero(bound < (0.02 if solid.carve else total + max(solid.blend, 1e-3)))
            if not close.size:
                continue
            local = (place[close] - np.array(solid.at, np.float32)) @ turn
            found = _DISTANCES[solid.kind](local, solid) - (solid.round if solid.kind in ("box", "cone") else 0.0)
            before = total[close]
            if solid.carve:
                total[close] = np.maximum(before, -found)
                if colour is not None:
                    colour[close[-found > before]] = self.palette[solid.colour]
                continue
            blend = max(solid.blend, 1e-3)
            share = np.clip(0.5 + 0.5 * (before - found) / blend, 0, 1)
            total[close] = before * (1 - share) + found * share - blend * share * (1 - share)
            if colour is not None:
                sharp = np.clip((share - 0.5) * 4 + 0.5, 0, 1)[:, None]
                colour[close] += (self.palette[solid.colour] - colour[close]) * sharp
        return total


def _hull(solid: Solid, turn: Vectors) -> tuple[Vectors, float]:
    """Middle and radius of a ball that holds the solid."""
    size = solid.size
    middle = np.array(solid.at, np.float32)
    match solid.kind:
        case "ellipsoid":
            return middle, max(size)
        case "box":
            return middle, float(np.linalg.norm(size))
        case "cone":
            return middle, float(np.hypot(max(size[0], size[2]), size[1]))
        case "torus":
            return middle, size[0] + size[1]
        case "limb":
            half = np.array(size[:3], np.float32) / 2
            return middle + turn @ half, float(np.linalg.norm(half)) + max(size[3:])


def portray(body: Body, size: tuple[int, int], *, turn: float, tilt: float, fill: float) -> Portrait:
    """The body seen from `turn` and `tilt` degrees, filling `fill` of a frame of `size` (width, height)."""
    view = _rotation((-tilt, turn, 0.0)).T.astype(np.float32)
    middle, zoom = _fit(body, view, size, fill)
    width, height = size
    coarse = _Camera(
        view, middle, zoom, (max(8, round(width * _COARSE / max(size))), max(8, round(height * _COARSE / max(size))))
    )
    depth, nearest, _ = _march(body, coarse, np.arange(coarse.count), np.zeros(coarse.count, np.float32), steps=40)
    pixel = 2 * zoom / min(coarse.size)
    hit = (nearest < 2.2 * pixel).reshape(coarse.size[::-1])
    start = np.where(nearest < 2.2 * pixel, depth, 2 * _REACH).reshape(coarse.size[::-1])
    start = ndimage.minimum_filter(start, 3) - 3 * pixel
    fine = _Camera(view, middle, zoom, size)
    wanted = np.asarray(cv2.resize(grown(hit).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0
    begin = np.asarray(cv2.resize(start.astype(np.float32), size, interpolation=cv2.INTER_NEAREST))
    rays = np.flatnonzero(wanted)
    depth, nearest, points = _march(body, fine, rays, np.maximum(begin.ravel()[rays], 0), steps=70)
    pixel = 2 * zoom / min(size)
    return _develop(body, view, points, np.clip(1.4 - nearest / pixel, 0, 1), rays, size, pixel)


def _develop(
    body: Body,
    view: Vectors,
    points: Vectors,
    cover: Field,
    rays: NDArray[np.int64],
    size: tuple[int, int],
    pixel: float,
) -> Portrait:
    shown = cover > 0.01
    rays, points, cover = rays[shown], points[shown], cover[shown]
    _, colours = body.coloured(points)
    step = max(pixel, 2e-3)
    normals = np.zeros_like(points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        toward = np.array(corner, np.float32)
        normals += toward * body.distance(points + toward * step)[:, None]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    closed = np.zeros(len(points), np.float32)
    for reach, weight in ((0.06, 0.5), (0.18, 0.3), (0.4, 0.2)):
        closed += weight * np.clip(1 - body.distance(points + normals * reach) / reach, 0, 1)

    def spread(values: Vectors, fill: float) -> NDArray[Any]:
        full = np.full((size[0] * size[1], *values.shape[1:]), fill, np.float32)
        full[rays] = values
        return full.reshape(size[1], size[0], *values.shape[1:])

    return Portrait(
        alpha=spread(cover, 0.0),
        points=spread(points, 0.0),
        normals=spread((normals @ view.T).astype(np.float32), 0.0),
        colours=spread(colours, 0.5),
        openness=spread(1 - 0.62 * closed, 1.0),
    )


@dataclass(frozen=True, slots=True)
class _Camera:
    view: Vectors
    """Rows: right, up, towards the viewer."""
    middle: Vectors
    zoom: float
    """Half the shorter side of the frame, in the body's units."""
    size: tuple[int, int]

    @property
    def count(self) -> int:
        return self.size[0] * self.size[1]

    def origins(self, rays: NDArray[np.int64]) -> Vectors:
        width, height = self.size
        pixel = 2 * self.zoom / min(self.size)
        across = (rays % width + 0.5 - width / 2) * pixel
        up = (height / 2 - rays // width - 0.5) * pixel
        flat = np.stack([across, up, np.full(len(rays), _REACH)], axis=1)
        return (self.middle + flat @ self.view).astype(np.float32)


def _march(
    body: Body, camera: _Camera, rays: NDArray[np.int64], start: Field, *, steps: int
) -> tuple[Field, Field, Vectors]:
    """(depth, smallest distance met, point of that) per ray."""
    origins = camera.origins(rays)
    toward = -camera.view[2]
    depth = start.astype(np.float32).copy()
    nearest = np.full(len(rays), 9.0, np.float32)
    best = depth.copy()
    active = np.arange(len(rays))
    for _ in range(steps):
        distance = body.distance(origins[active] + depth[active, None] * toward)
        closer = distance < nearest[active]
        nearest[active[closer]] = distance[closer]
        best[active[closer]] = depth[active[closer]]
        moving = (distance > 8e-4) & (depth[active] < 2 * _REACH)
        depth[active] += np.maximum(distance, 0) * 0.92
        active = active[moving]
        if not active.size:
            break
    return best, nearest, origins + best[:, None] * toward


def _fit(body: Body, view: Vectors, size: tuple[int, int], fill: float) -> tuple[Vectors, float]:
    """(middle, zoom) that show the whole body."""
    centre = np.array([0.0, 1.0, 0.0], np.float32)
    scout = _Camera(view, centre, _REACH, (110, 110))
    _, nearest, _ = _march(body, scout, np.arange(scout.count), np.zeros(scout.count, np.float32), steps=36)
    seen = (nearest < 0.03).reshape(110, 110)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not rows.size:
        return centre, 1.2
    pixel = 2 * _REACH / 110
    across, up = ((columns[0] + columns[-1] + 1) / 2 - 55) * pixel, (55 - (rows[0] + rows[-1] + 1) / 2) * pixel
    middle = centre + np.array([across, up, 0.0], np.float32) @ view
    half = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1]) * pixel / 2
    frame = np.array(size) / min(size)
    return middle.astype(np.float32), float((half / frame).max() / fill)


def _rotation(degrees: Triple) -> Vectors:
    """Turns the axes; `vectors @ result` are coordinates in the turned frame."""
    x, y, z = np.radians(degrees)
    around_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    around_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    around_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return (around_z @ around_y @ around_x).astype(np.float32)


def _length(vectors: Vectors) -> Field:
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


def _ellipsoid(points: Vectors, solid: Solid) -> Field:
    scaled = points / np.array(solid.size[:3], np.float32)
    outer = _length(scaled)
    inner = _length(scaled / np.array(solid.size[:3], np.float32))
    return outer * (outer - 1) / np.maximum(inner, 1e-6)


def _box(points: Vectors, solid: Solid) -> Field:
    beyond = np.abs(points) - (np.array(solid.size[:3], np.float32) - solid.round)
    inside = np.maximum(np.maximum(beyond[:, 0], beyond[:, 1]), beyond[:, 2])
    return _length(np.maximum(beyond, 0)) + np.minimum(inside, 0)


def _cone(points: Vectors, solid: Solid) -> Field:
    """Exact distance to a capped cone along y."""
    bottom, half, top = (max(one - solid.round, 1e-3) for one in solid.size[:3])
    across, up = np.hypot(points[:, 0], points[:, 2]), points[:, 1]
    cap_x, cap_y = across - np.minimum(across, np.where(up < 0, bottom, top)), np.abs(up) - half
    edge_x, edge_y = top - bottom, 2 * half
    along = np.clip(((top - across) * edge_x + (half - up) * edge_y) / (edge_x**2 + edge_y**2), 0, 1)
    side_x, side_y = across - top + edge_x * along, up - half + edge_y * along
    sign = np.where((side_x < 0) & (cap_y < 0), np.float32(-1), np.float32(1))
    return sign * np.sqrt(np.minimum(cap_x**2 + cap_y**2, side_x**2 + side_y**2))


def _limb(points: Vectors, solid: Solid) -> Field:
    reach = np.array(solid.size[:3], np.float32)
    along = np.clip(points @ reach / max(float(reach @ reach), 1e-6), 0, 1)
    radius = solid.size[3] + (solid.size[4] - solid.size[3]) * along
    return _length(points - along[:, None] * reach) - radius


def _torus(points: Vectors, solid: Solid) -> Field:
    ring = np.hypot(points[:, 0], points[:, 2]) - solid.size[0]
    return np.hypot(ring, points[:, 1]) - solid.size[1]


_DISTANCES: Final = {"ellipsoid": _ellipsoid, "box": _box, "cone": _cone, "limb": _limb, "torus": _torus}
