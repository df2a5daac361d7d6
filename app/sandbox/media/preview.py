"""A picture of a model: three-quarter view, studio light, soft shadow on the ground."""

import io
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from app.sandbox.media.arrays import Pixels, Rgb, Vectors
from app.sandbox.media.glb_read import Entry, GlbFile, as_object
from app.sandbox.media.lighting import FILL, KEY, shade, to_linear, to_srgb
from app.sandbox.media.raster import Hits, rasterise
from app.sandbox.media.solid import vertex_normals
from app.sandbox.media.studio import stamp, sweep

_TURN, _TILT = np.radians(-28.0), np.radians(13.0)
_DISTANCE: Final = 4.2
"""Of the camera from the middle, in radii of the model."""
_FILL: Final = 0.74
"""Share of the frame that the model takes."""
_BACKDROP: Final = (0.93, 0.93, 0.925)
_MAX_TEXTURE_PIXELS: Final = 70_000_000
_TEXTURE_SIDE: Final = 2048


@dataclass(frozen=True, slots=True)
class _Surface:
    colour: Rgb
    """Linear factor, shape (3,)."""
    texture: Rgb | None
    emission: Rgb | None
    metallic: float
    roughness: float


@dataclass(frozen=True, slots=True)
class _Scene:
    points: Vectors
    normals: Vectors
    uv: Vectors
    triangles: NDArray[np.int64]
    surface_of: NDArray[np.int64]
    """Per triangle."""
    surfaces: list[_Surface]


@dataclass(frozen=True, slots=True)
class _Camera:
    turn: Vectors
    """Rows: right, up, towards the viewer."""
    middle: Vectors
    distance: float
    zoom: float
    centre: Vectors
    """Pixels."""

    def project(self, points: Vectors) -> tuple[Vectors, Vectors]:
        """(x, y in pixels; depth)."""
        seen = (points - self.middle) @ self.turn.T
        depth = self.distance - seen[:, 2]
        flat = seen[:, :2] / depth[:, None] * self.zoom
        return self.centre + flat * [1, -1], depth

    def rays(self, x: Vectors, y: Vectors) -> tuple[Vectors, Vectors]:
        """(eye, directions) through pixels."""
        across, up = (x - self.centre[0]) / self.zoom, -(y - self.centre[1]) / self.zoom
        toward = np.stack([across, up, -np.ones_like(across)], axis=-1)
        return self.middle + self.distance * self.turn[2], toward @ self.turn


def render_preview(glb: bytes, *, size: int = 768) -> Image.Image:
    """An RGB picture, `size` (clamped to 64–2048) pixels square. Raises ValueError for a GLB that cannot be drawn."""
    side = int(np.clip(size, 64, 2048))
    scale = 2 if side <= 1024 else 1
    scene = _load(GlbFile(glb))
    wide = side * scale
    camera = _aim(scene.points, wide)
    flat, depth = camera.project(scene.points)
    hits = rasterise(flat, depth, scene.triangles, width=wide, height=wide)
    picture = _ground(scene, camera, wide)
    picture.reshape(-1, 3)[hits.pixels] = _shade(scene, camera, hits, depth, wide)
    small = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    return stamp(Image.fromarray(np.round(np.clip(small, 0, 1) * 255).astype(np.uint8), "RGB"))


def _aim(points: Vectors, wide: int) -> _Camera:
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    radius = max(float(np.linalg.norm(points - middle, axis=1).max()), 1e-6)
    toward = np.array([-np.sin(_TURN) * np.cos(_TILT), np.sin(_TILT), np.cos(_TURN) * np.cos(_TILT)])
    right = np.cross([0.0, 1.0, 0.0], toward)
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(toward, right), toward])
    loose = _Camera(turn, middle, _DISTANCE * radius, 1.0, np.zeros(2))
    flat, _ = loose.project(points)
    corner, opposite = flat.min(axis=0), flat.max(axis=0)
    zoom = _FILL * wide / max(float((opposite - corner).max()), 1e-9)
    centre = np.array([0.5, 0.49]) * wide - (corner + opposite) / 2 * zoom
    return _Camera(turn, middle, _DISTANCE * radius, zoom, centre)


def _ground(scene: _Scene, camera: _Camera, wide: int) -> Rgb:
    """Backdrop with the model's shadow: a soft one along the key light, a tight one underneath."""
    picture = sweep((wide, wide), _BACKDROP)
    floor = float(scene.points[:, 1].min())
    cast = scene.points[:, [0, 2]] - (scene.points[:, 1] - floor)[:, None] * (KEY[[0, 2]] / KEY[1]) * 0.45
    below = scene.points[:, [0, 2]]
    both = np.concatenate([cast, below])
    low, span = both.min(axis=0), max(float(np.ptp(both, axis=0).max()), 1e-9)
    cells = 320
    low = low - span * 0.3
    to_cells = cells / (span * 1.6)
    dark = np.zeros((cells, cells), np.float32)
    flat_depth = np.zeros(len(cast))
    for plane, strength, blur in ((cast, 0.26, 0.035), (below, 0.30, 0.022)):
        cover = np.zeros(cells * cells, np.float32)
        cover[rasterise((plane - low) * to_cells, flat_depth, scene.triangles, width=cells, height=cells).pixels] = 1
        dark += strength * ndimage.gaussian_filter(cover.reshape(cells, cells), blur * cells)
    coarse = wide // 4
    y, x = np.mgrid[:coarse, :coarse]
    eye, toward = camera.rays(x * 4.0 + 2, y * 4.0 + 2)
    along = np.where(toward[..., 1] < -1e-6, (floor - eye[1]) / np.minimum(toward[..., 1], -1e-6), -1.0)
    place = ((eye + toward * along[..., None])[..., [0, 2]] - low) * to_cells
    seen = ndimage.map_coordinates(dark, [place[..., 1] - 0.5, place[..., 0] - 0.5], order=1, mode="constant")
    seen = np.where(along > 0, seen, 0.0).astype(np.float32)
    wide_dark = np.asarray(cv2.resize(seen, (wide, wide), interpolation=cv2.INTER_CUBIC), np.float32)
    return picture * (1 - np.clip(wide_dark, 0, 0.7))[..., None]


def _shade(scene: _Scene, camera: _Camera, hits: Hits, depth: Vectors, wide: int) -> Rgb:
    corners = scene.triangles[hits.faces]
    # Shares on the screen become shares on the surface by dividing by depth.
    weights = hits.weights / depth[corners]
    weights /= weights.sum(axis=1, keepdims=True)
    normal = _unit(np.einsum("nk,nkd->nd", weights, scene.normals[corners]))
    uv = np.einsum("nk,nkd->nd", weights, scene.uv[corners])
    point = np.einsum("nk,nkd->nd", weights, scene.points[corners])
    view = _unit(camera.middle + camera.distance * camera.turn[2] - point)
    # Two-sided: a surface seen from behind is lit as if turned round.
    facing = np.sum(normal * view, axis=1, keepdims=True)
    normal = np.where(facing < 0, -normal, normal)
    # The lights stand with the camera, so that every model is lit from its shown side.
    key, fill = KEY @ camera.turn, FILL @ camera.turn
    openness = _openness(hits, depth, scene.triangles, wide)
    colour = np.empty((len(normal), 3), np.float32)
    shown = scene.surface_of[hits.faces]
    for number, surface in enumerate(scene.surfaces):
        mine = shown == number
        if not mine.any():
            continue
        base = surface.colour * (1.0 if surface.texture is None else _sample(surface.texture, uv[mine]))
        light = shade(
            base,
            normal[mine],
            view[mine],
            metallic=surface.metallic,
            roughness=surface.roughness,
            openness=openness[mine],
            key=key,
            fill=fill,
        )
        colour[mine] = light if surface.emission is None else light + _sample(surface.emission, uv[mine])
    return to_srgb(colour)


def _openness(hits: Hits, depth: Vectors, triangles: NDArray[np.int64], wide: int) -> Vectors:
    """0.5 in folds – 1 in the open, from how much farther a pixel lies than its surroundings."""
    value = np.einsum("nk,nk->n", hits.weights, depth[triangles[hits.faces]])
    span = max(float(np.ptp(value)), 1e-9)
    buffer = np.zeros((wide, wide), np.float32)
    cover = np.zeros((wide, wide), np.float32)
    buffer.reshape(-1)[hits.pixels] = (value - value.min()) / span
    cover.reshape(-1)[hits.pixels] = 1
    half = (wide // 2, wide // 2)
    buffer, cover = (np.asarray(cv2.resize(one, half, interpolation=cv2.INTER_AREA)) for one in (buffer, cover))
    dark = np.zeros(half, np.float32)
    for share in (0.008, 0.03):
        around = cv2.GaussianBlur(buffer, (0, 0), share * wide) / np.maximum(
            cv2.GaussianBlur(cover, (0, 0), share * wide), 1e-3
        )
        dark += np.clip((buffer / np.maximum(cover, 1e-3) - around) * (0.05 / share), 0, 0.3)
    full = np.asarray(cv2.resize(dark, (wide, wide), interpolation=cv2.INTER_LINEAR))
    return 1 - np.clip(full.reshape(-1)[hits.pixels], 0, 0.5).astype(np.float64)


def _sample(texture: Rgb, uv: Vectors) -> Rgb:
    height, width = texture.shape[:2]
    place_x, place_y = (uv[:, 0] % 1.0) * width - 0.5, (uv[:, 1] % 1.0) * height - 0.5
    x, y = np.floor(place_x).astype(np.int64), np.floor(place_y).astype(np.int64)
    dx, dy = (place_x - x)[:, None].astype(np.float32), (place_y - y)[:, None].astype(np.float32)
    left, right, top, bottom = x % width, (x + 1) % width, y % height, (y + 1) % height
    upper = texture[top, left] * (1 - dx) + texture[top, right] * dx
    lower = texture[bottom, left] * (1 - dx) + texture[bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def _load(file: GlbFile) -> _Scene:
    points: list[Vectors] = []
    normals: list[Vectors] = []
    uvs: list[Vectors] = []
    triangles: list[NDArray[np.int64]] = []
    surface_of: list[NDArray[np.int64]] = []
    numbers: dict[Any, int] = {}
    surfaces: list[_Surface] = []
    first = 0
    for placed in file.placed():
        part = placed.part
        world = part.positions @ placed.to_world[:3, :3].T + placed.to_world[:3, 3]
        material = part.entry.get("material")
        if material not in numbers:
            numbers[material] = len(surfaces)
            surfaces.append(_surface(file, file.entry("materials", material) if material is not None else {}))
        points.append(world)
        normals.append(vertex_normals(world, part.triangles))
        uv = as_object(part.entry["attributes"], "attributes").get("TEXCOORD_0")
        found = file.vectors(uv, 2, "TEXCOORD_0") if uv is not None else np.zeros((len(world), 2), np.float32)
        uvs.append(found if len(found) == len(world) else np.zeros((len(world), 2), np.float32))
        triangles.append(part.triangles + first)
        surface_of.append(np.full(len(part.triangles), numbers[material]))
        first += len(world)
    everything = np.concatenate(points)
    if not np.isfinite(everything).all() or float(np.ptp(everything, axis=0).max()) <= 0:
        raise ValueError("the model has no extent")
    return _Scene(
        everything,
        np.concatenate(normals),
        np.concatenate(uvs),
        np.concatenate(triangles),
        np.concatenate(surface_of),
        surfaces,
    )


def _surface(file: GlbFile, material: Entry) -> _Surface:
    metal = as_object(material.get("pbrMetallicRoughness", {}), "pbrMetallicRoughness")
    emission = texture_pixels(file, material.get("emissiveTexture"))
    strength = np.array(_factor(material.get("emissiveFactor"), 3, 0.0), np.float32)
    mixed = texture_pixels(file, metal.get("metallicRoughnessTexture"))
    roughness, metallic = (_factor([metal.get(name, 1.0)], 1, 1.0)[0] for name in ("roughnessFactor", "metallicFactor"))
    if mixed is not None:
        average = mixed.reshape(-1, 3).mean(axis=0) / 255
        roughness, metallic = roughness * float(average[1]), metallic * float(average[2])
    base = texture_pixels(file, metal.get("baseColorTexture"))
    return _Surface(
        colour=np.array(_factor(metal.get("baseColorFactor"), 4, 1.0)[:3], np.float32),
        texture=None if base is None else to_linear(base / 255.0),
        emission=None if emission is None or not strength.any() else to_linear(emission / 255.0) * strength,
        metallic=float(np.clip(metallic, 0, 1)),
        roughness=float(np.clip(roughness, 0.05, 1)),
    )


def texture_pixels(file: GlbFile, info: object) -> Pixels | None:
    """The embedded picture of a texture reference, at most 2048 pixels a side; None when there is none to be had."""
    if info is None:
        return None
    texture = file.entry("textures", as_object(info, "texture").get("index"))
    image = file.entry("images", texture["source"]) if "source" in texture else {}
    if "bufferView" not in image:
        return None
    try:
        picture = Image.open(io.BytesIO(file.view_bytes(image["bufferView"])), formats=("PNG", "JPEG", "WEBP"))
        if picture.width * picture.height > _MAX_TEXTURE_PIXELS:
            raise ValueError("a texture of the GLB is too large")
        picture.draft("RGB", (_TEXTURE_SIDE, _TEXTURE_SIDE))
        picture = picture.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("a texture of the GLB cannot be decoded") from error
    picture.thumbnail((_TEXTURE_SIDE, _TEXTURE_SIDE))
    return np.array(picture)


def _factor(value: object, count: int, absent: float) -> list[float]:
    if not isinstance(value, list):
        return [absent] * count
    numbers: list[Any] = value
    if len(numbers) != count or not all(isinstance(one, int | float) and 0 <= one <= 100 for one in numbers):
        raise ValueError("a factor of a material is out of range")
    return [float(one) for one in numbers]


def _unit(vectors: NDArray[Any]) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
