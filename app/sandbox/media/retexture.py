"""A new skin for a model that exists already. Its geometry is not touched.

The skin is computed in space, not on the sheet: each texel learns where on the body it lies, so wood grain and
marble veins run through seams of the texture without a break.
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.sandbox.media.arrays import Field, Pixels, Rgb, Vectors
from app.sandbox.media.atlas import extend, imagined_back, jpeg
from app.sandbox.media.canvas import Canvas, tinted
from app.sandbox.media.filters import luminance
from app.sandbox.media.glb_read import Entry, GlbFile, Part, as_object
from app.sandbox.media.looks_solid import sharpened
from app.sandbox.media.materials import Material, material_of
from app.sandbox.media.noise import clouds, mix
from app.sandbox.media.preview import texture_pixels
from app.sandbox.media.raster import rasterise
from app.sandbox.media.repack import Repacker
from app.sandbox.media.shapes import nearest
from app.sandbox.media.solid import vertex_normals
from app.sandbox.media.subject import subject_mask
from app.sandbox.media.words import Wish, read_wish

_BAKED_SIDE: Final = 1024
_TEXTURE_SIDES: Final = (64, 4096)
_MOST_MATERIALS: Final = 16


@dataclass(frozen=True, slots=True)
class _Place:
    """Where each texel of a skin lies on the body."""

    points: Vectors
    """Shape (h, w, 3), the body scaled to height 1 and centred."""
    front: Field
    """1 where the surface faces +z, 0 where it faces away."""


def retexture_model(
    glb: bytes, *, prompt: str | None, reference: Image.Image | None, texture_size: int, seed: int
) -> bytes:
    """The same geometry with a skin of what `prompt` names and, where given, of the `reference` picture's colours.

    Light and dark of the old texture stay visible. Meshes without texture coordinates get flat ones from the
    front. One square JPEG of `texture_size` (clamped to 64–4096 pixels) per material. Without prompt and reference the
    old texture is only refined.

    Raises ValueError, with a text for clients, for data that is no GLB with triangles or uses unknown extensions.
    """
    file = GlbFile(glb)
    parts = file.parts()
    groups: dict[int | None, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.entry.get("material"), []).append(part)
    if len(groups) > _MOST_MATERIALS:
        raise ValueError(f"models with more than {_MOST_MATERIALS} materials are not supported here")
    everything = np.concatenate([part.positions for part in parts])
    low, high = everything.min(axis=0), everything.max(axis=0)
    if float((high - low).max()) <= 0:
        raise ValueError("the model has no extent")
    skinner = _Skinner(
        wish=read_wish(prompt or ""),
        asked=bool(prompt and prompt.strip()),
        reference=None if reference is None else _reference(reference),
        size=int(np.clip(texture_size, *_TEXTURE_SIDES)),
        seed=seed,
    )
    repacker = Repacker(file)
    for number, (index, group) in enumerate(groups.items()):
        material = file.entry("materials", index) if index is not None else {}
        channel = _channel(material, group)
        uvs = [_uv(file, part, channel, low, high) for part in group]
        place = _bake(group, uvs, low, high, side=min(skinner.size, _BAKED_SIDE))
        skin, made_of = skinner.skin(place, _old_skin(file, material), part=number)
        for part, uv in zip(group, uvs, strict=True):
            primitive = repacker.primitive(part.mesh, part.number)
            if f"TEXCOORD_{channel}" not in primitive["attributes"]:
                primitive["attributes"][f"TEXCOORD_{channel}"] = repacker.builder.attribute(uv)
            primitive["material"] = number
        repacker.builder.add("materials", _material(repacker, material, skin, made_of, channel))
    return repacker.builder.pack()


@dataclass(frozen=True, slots=True)
class _Skinner:
    wish: Wish
    asked: bool
    reference: tuple[Rgb, Rgb] | None
    """What is seen from the front and what is made up for the back, cropped to the subject."""
    size: int
    seed: int

    def skin(self, place: _Place, old: Rgb, *, part: int) -> tuple[Pixels, Material | None]:
        """The texture and the material that it shows, if one."""
        side = place.front.shape[0]
        old = np.asarray(cv2.resize(old, (side, side), interpolation=cv2.INTER_AREA), np.float32)
        names = self._materials()
        made_of = material_of(names[0], self.wish, seed=self.seed) if names else None
        seen = None if self.reference is None else _projected(place, self.reference)
        if made_of is not None:
            colour = self._carved(place, old if seen is None else seen, names, part)
            if seen is not None:
                colour = 0.55 * colour + 0.45 * seen
        elif seen is not None:
            colour = seen * (0.72 + 0.56 * _contrast(old))[..., None]
        else:
            colour = self._tinted(old)
        large = np.asarray(cv2.resize(colour, (self.size, self.size), interpolation=cv2.INTER_CUBIC), np.float32)
        rough = made_of.bump if made_of is not None else 0.3
        grain = clouds((self.size, self.size), cell=5.0, octaves=2, seed=mix(self.wish.key, self.seed, 40 + part))
        large = sharpened(np.clip(large, 0, 1)) * (1 + (0.02 + 0.05 * rough) * grain)[..., None]
        return np.round(np.clip(large, 0, 1) * 255).astype(np.uint8), made_of

    def _materials(self) -> tuple[str, ...]:
        if self.wish.materials:
            return self.wish.materials
        return (self.wish.look,) if self.wish.look_named and self.wish.look in ("neon", "clay") else ()

    def _carved(self, place: _Place, old: Rgb, names: tuple[str, ...], part: int) -> Rgb:
        """The first material; a second one lies around it in bands, as fittings do."""
        light = _contrast(old)
        flat = place.points.reshape(-1, 3)
        layers: list[Rgb] = []
        for number, name in enumerate(names[:2]):
            material = material_of(name, self.wish, seed=self.seed)
            grain = material.grain(flat, mix(self.wish.key, self.seed, number)).reshape(light.shape)
            value = np.clip(grain * (1 - material.picture) + light * material.picture, 0, 1)
            colour = material.colour_at(value.reshape(-1)).reshape(*light.shape, 3)
            layers.append(np.asarray(colour * (0.78 + 0.34 * light)[..., None], np.float32))
        if len(layers) == 1:
            return layers[0]
        phase = np.random.default_rng([self.wish.key, self.seed & 0xFFFFFFFF, part]).uniform(0, 1)
        wave = np.abs((place.points[..., 1] * 3.2 + phase) % 1 - 0.5)
        band = np.clip((0.09 - wave) * 90, 0, 1)[..., None]
        seam = np.clip(1 - np.abs(wave - 0.09) * 80, 0, 1)[..., None]
        return (layers[0] * (1 - band) + layers[1] * band) * (1 - 0.45 * seam)

    def _tinted(self, old: Rgb) -> Rgb:
        if not self.asked:
            return old
        whole = np.ones(old.shape[:2], np.float32)
        return tinted(Canvas(old, whole, np.zeros_like(whole), self.wish, self.seed), old)


def _projected(place: _Place, reference: tuple[Rgb, Rgb]) -> Rgb:
    """The reference as if thrown onto the body from the front; its made-up back on the far side."""
    front, back = (_thrown(place, picture) for picture in reference)
    return front * place.front[..., None] + back * (1 - place.front[..., None])


def _thrown(place: _Place, picture: Rgb) -> Rgb:
    height, width = picture.shape[:2]
    x = np.clip(place.points[..., 0] / _span(place, 0) + 0.5, 0, 1) * (width - 1)
    y = np.clip(0.5 - place.points[..., 1] / _span(place, 1), 0, 1) * (height - 1)
    found = cv2.remap(picture, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    return np.asarray(found, np.float32)


def _span(place: _Place, axis: int) -> float:
    return max(2 * float(np.abs(place.points[..., axis]).max()), 1e-6)


def _contrast(old: Rgb) -> Field:
    """Light and dark of the old skin stretched to 0–1; an even skin gives 0.6 all over."""
    light = luminance(old)
    low, high = np.quantile(light, [0.03, 0.97])
    if high - low < 0.03:
        return np.full_like(light, 0.6)
    return np.clip((light - low) / max(float(high - low), 0.25), 0, 1)


def _reference(picture: Image.Image) -> tuple[Rgb, Rgb]:
    working = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    working.thumbnail((900, 900))
    mask = subject_mask(working)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    rgb = extend(np.asarray(working.convert("RGB")), mask)
    crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    front, back = rgb[crop], imagined_back(rgb, mask)[crop]
    return front.astype(np.float32) / 255, back.astype(np.float32) / 255


def _channel(material: Entry, group: list[Part]) -> int:
    """The texture coordinates that the old skin used, where all parts have them."""
    surface = as_object(material.get("pbrMetallicRoughness", {}), "pbrMetallicRoughness")
    info = as_object(surface.get("baseColorTexture", {}), "baseColorTexture")
    channel = info.get("texCoord", 0)
    known = isinstance(channel, int) and all(f"TEXCOORD_{channel}" in part.entry["attributes"] for part in group)
    return channel if known else 0


def _uv(file: GlbFile, part: Part, channel: int, low: Vectors, high: Vectors) -> Vectors:
    index = part.entry["attributes"].get(f"TEXCOORD_{channel}")
    if index is not None:
        uv = file.vectors(index, 2, "TEXCOORD")
        if len(uv) == len(part.positions):
            return uv
        raise ValueError("TEXCOORD and POSITION differ in length")
    size = np.maximum(high - low, 1e-9)
    flat = (part.positions - low) / size
    return np.stack([flat[:, 0], 1 - flat[:, 1]], axis=1).astype(np.float32) * 0.98 + 0.01


def _bake(group: list[Part], uvs: list[Vectors], low: Vectors, high: Vectors, *, side: int) -> _Place:
    height = max(float(high[1] - low[1]), 0.3 * float((high - low).max()))
    first = np.cumsum([0, *(len(part.positions) for part in group)])
    points = np.concatenate([(part.positions - (low + high) / 2) / height for part in group])
    normals = np.concatenate([vertex_normals(part.positions, part.triangles) for part in group])
    triangles = np.concatenate([part.triangles + start for part, start in zip(group, first[:-1], strict=True)])
    corners = np.concatenate(uvs).astype(np.float64)[triangles]
    # Coordinates beyond 0–1 repeat: each triangle moves into the first tile as a whole.
    corners -= np.floor(corners.min(axis=1, keepdims=True))
    triangles, corners = _evenly_mapped(points, triangles, corners)
    apart = np.arange(triangles.size).reshape(-1, 3)
    flat = np.clip(corners.reshape(-1, 2), 0, 4) * side
    # Where front and back share texels the front's place counts.
    hits = rasterise(flat, -points[triangles].reshape(-1, 3)[:, 2].astype(np.float64), apart, width=side, height=side)
    place = np.zeros((side * side, 3), np.float32)
    facing = np.full(side * side, 0.5, np.float32)
    seen = triangles[hits.faces]
    place[hits.pixels] = np.einsum("nk,nkd->nd", hits.weights, points[seen])
    facing[hits.pixels] = np.einsum("nk,nk->n", hits.weights, normals[seen][..., 2])
    covered = np.zeros(side * side, bool)
    covered[hits.pixels] = True
    if not covered.any():
        raise ValueError("the model's texture coordinates cover nothing")
    owner = nearest(covered.reshape(side, side))
    front = np.clip(facing.reshape(side, side)[owner] * 4 + 0.6, 0, 1)
    return _Place(place.reshape(side, side, 3)[owner], front.astype(np.float32))


def _evenly_mapped(
    points: Vectors, triangles: NDArray[np.int64], corners: Vectors
) -> tuple[NDArray[np.int64], Vectors]:
    """Without the slivers that cross half the sheet, as at seams without doubled points: they own no texels."""
    spots = points[triangles].astype(np.float64)
    area = np.linalg.norm(np.cross(spots[:, 1] - spots[:, 0], spots[:, 2] - spots[:, 0]), axis=1)
    edges = corners[:, 1:] - corners[:, :1]
    sheet = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    typical = float(sheet.sum() / max(float(area.sum()), 1e-12))
    reach = np.abs(edges).max(axis=(1, 2))
    even = (sheet <= 60 * typical * area) | (reach < 0.02)
    long = (reach > 0.1) & (reach**2 > 400 * typical * area)
    kept = even & ~long if (even & ~long).any() else np.ones(len(triangles), bool)
    return triangles[kept], corners[kept]


def _old_skin(file: GlbFile, material: Entry) -> Rgb:
    """sRGB 0–1, any size; one pixel of the base colour where there is no picture."""
    surface = as_object(material.get("pbrMetallicRoughness", {}), "pbrMetallicRoughness")
    info = surface.get("baseColorTexture")
    pixels = texture_pixels(file, info) if info is not None else None
    if pixels is not None:
        return pixels.astype(np.float32) / 255
    factor: Any = surface.get("baseColorFactor", [0.8, 0.8, 0.8, 1.0])
    if not isinstance(factor, list) or len(factor) != 4 or not all(isinstance(one, int | float) for one in factor):
        raise ValueError("a base colour is no colour")
    return (np.clip(np.array([[factor[:3]]], np.float32), 0, 1) ** (1 / 2.2)).astype(np.float32)


def _material(repacker: Repacker, old: Entry, skin: Pixels, made_of: Material | None, channel: int) -> Entry:
    texture: Entry = {"index": repacker.builder.texture(jpeg(skin), "image/jpeg", name="sandbox skin")}
    if channel:
        texture["texCoord"] = channel
    surface: Entry = {
        "baseColorTexture": texture,
        "metallicFactor": made_of.metallic if made_of is not None else 0.0,
        "roughnessFactor": made_of.roughness if made_of is not None else 0.8,
    }
    material: Entry = {"name": "sandbox skin", "pbrMetallicRoughness": surface, **repacker.kept_maps(old)}
    if old.get("doubleSided") is True:
        material["doubleSided"] = True
    if made_of is not None and made_of.glow > 0.5:
        material["emissiveTexture"] = dict(texture)
        material["emissiveFactor"] = [made_of.glow] * 3
    return material
