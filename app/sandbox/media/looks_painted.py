"""Looks of pictures: paint, ink, tiles, light."""

import cv2
import numpy as np
from PIL import Image
from scipy.spatial import Delaunay, KDTree

from app.sandbox.media.arrays import Field, Rgb, Vectors
from app.sandbox.media.canvas import Canvas, Painted, tinted
from app.sandbox.media.filters import blur, luminance, saturated, smoothed
from app.sandbox.media.noise import clouds
from app.sandbox.media.relief import normals_of

PAPER = (0.965, 0.955, 0.93)


def watercolor(canvas: Canvas) -> Painted:
    unit, size = canvas.unit, canvas.size
    wobble = [clouds(size, cell=28 * unit, octaves=2, seed=canvas.seed_for(at)) * 5 * unit for at in (1, 2)]
    base = _warp(saturated(tinted(canvas, smoothed(canvas.rgb, unit=unit, strength=1.6)), 1.45), *wobble)
    alpha = _warp(canvas.alpha, *wobble)
    level = luminance(base)[..., None]
    steps = 6.0
    # Soft terraces: pigment dries in washes.
    terraced = (np.floor(level * steps) + np.clip((level * steps % 1 - 0.5) * 5 + 0.5, 0, 1)) / steps
    washed = base * (0.35 + 0.65 * terraced / np.maximum(level, 0.04))
    ridge = np.clip(np.abs(level[..., 0] - blur(level[..., 0], 4 * unit)) * 5, 0, 0.32)
    rim = np.clip((blur(alpha, 5 * unit) < 0.93).astype(np.float32) * alpha, 0, 1) * 0.22
    flow = clouds(size, cell=160 * unit, octaves=3, seed=canvas.seed_for(3)) * 0.13
    grain = clouds(size, cell=3.2 * unit, octaves=2, seed=canvas.seed_for(4)) * 0.05
    pigment = np.clip(1 - washed, 0, 1) * (0.86 + flow + grain + blur(ridge, unit) + blur(rim, unit))[..., None]
    return Painted(np.clip(np.array(PAPER, np.float32) - pigment * 0.97, 0, 1), alpha)


def ink(canvas: Canvas) -> Painted:
    unit = canvas.unit
    light = luminance(smoothed(canvas.rgb, unit=unit, strength=1.0)) * canvas.alpha + (1 - canvas.alpha)
    light = np.clip((light - 0.04) / 0.92, 0, 1)
    fine, wide = blur(light, 1.5 * unit), blur(light, 2.6 * unit)
    stroke = np.clip(1 + np.tanh((fine - 0.985 * wide - 0.004) * 90), 0, 1)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]].astype(np.float32)
    shake = clouds(canvas.size, cell=60 * unit, octaves=2, seed=canvas.seed_for(1)) * 4 * unit
    tone = blur(light, 3 * unit)
    hatch = np.ones_like(light)
    pitch = 9.0 * unit
    for limit, angle in ((0.56, 0.8), (0.36, 2.2), (0.2, 0.15)):
        lines = np.sin((x * np.cos(angle) + y * np.sin(angle) + shake) * 2 * np.pi / pitch)
        width = np.clip((limit - tone) * 3.4, 0, 0.95)
        hatch *= 1 - np.clip((lines - 1 + 2 * width * 0.72) * 2.2, 0, 1) * (tone < limit)
    mark = np.minimum(stroke, hatch)[..., None] * (0.94 + 0.06 * canvas.alpha[..., None])
    blueprint = "blueprint" in canvas.wish.words
    pen, paper = ((0.93, 0.96, 1.0), (0.13, 0.30, 0.58)) if blueprint else (_pen(canvas), PAPER)
    wash = tinted(canvas, canvas.rgb) if not blueprint else canvas.rgb * 0.25
    ground = (
        np.array(paper, np.float32) * (0.86 + 0.14 * wash)
        if not blueprint
        else np.array(paper, np.float32) * (0.8 + wash)
    )
    ground = ground * (0.93 + 0.07 * tone[..., None])
    return Painted(np.clip(ground * mark + np.array(pen, np.float32) * (1 - mark), 0, 1), canvas.alpha)


def _pen(canvas: Canvas) -> tuple[float, float, float]:
    red, green, blue = canvas.wish.palette(1, seed=canvas.seed)[0]
    share = 0.55 if canvas.wish.colours else 0.22
    return 0.10 + share * 0.6 * red, 0.10 + share * 0.6 * green, 0.13 + share * 0.6 * blue


def lowpoly(canvas: Canvas) -> Painted:
    width, height = canvas.size
    rng = np.random.default_rng(canvas.seed_for(1))
    base = saturated(tinted(canvas, canvas.rgb), 1.25)
    light = blur(luminance(base), 2 * canvas.unit)
    down, right = np.gradient(light)
    rise, run = np.gradient(blur(canvas.alpha, 2 * canvas.unit))
    outline = np.abs(rise) + np.abs(run)
    pull = (blur(np.hypot(down, right) * canvas.alpha, 2 * canvas.unit) + 0.6 * outline) ** 0.8
    pull = pull / max(float(pull.mean()), 1e-6) * (0.35 + canvas.alpha) + 0.12
    chance = pull.ravel().astype(np.float64)
    chosen = rng.choice(pull.size, size=2400, replace=False, p=chance / chance.sum())
    frame = [(x, y) for x in np.linspace(-1, width, 14) for y in np.linspace(-1, height, 14)]
    points = np.concatenate([np.stack([chosen % width, chosen // width], axis=1), np.array(frame)]).astype(np.float64)
    corners = points[Delaunay(points).simplices]
    middle = np.clip(corners.mean(axis=1).astype(np.int64), 0, [width - 1, height - 1])
    spots = [
        middle,
        *(np.clip((middle * 2 + corners[:, k]) / 3, 0, [width - 1, height - 1]).astype(np.int64) for k in range(3)),
    ]
    colour = np.mean([blur(base, 1.2)[spot[:, 1], spot[:, 0]] for spot in spots], axis=0)
    normal = normals_of(blur(canvas.relief, 6 * canvas.unit))[middle[:, 1], middle[:, 0]]
    tone = 0.82 + 0.3 * (normal @ np.array([-0.4, 0.65, 0.55], np.float32)) + rng.normal(0, 0.035, len(colour))
    shaded = np.clip(colour * tone[:, None], 0, 1)
    painted = np.zeros((height, width, 3), np.uint8)
    for triangle, shade in zip(np.round(corners * 16).astype(np.int32), shaded * 255, strict=True):
        cv2.fillConvexPoly(painted, triangle, [float(one) for one in shade], cv2.LINE_AA, 4)
    return Painted(painted.astype(np.float32) / 255, canvas.alpha)


def pixel(canvas: Canvas) -> Painted:
    width, height = canvas.size
    block = max(3, round(min(width, height) / 80))
    small = (max(4, width // block), max(4, height // block))
    base = saturated(tinted(canvas, canvas.rgb), 1.35)
    shaded = (
        base
        * (0.82 + 0.3 * (normals_of(blur(canvas.relief, 8 * canvas.unit)) @ np.array([-0.4, 0.6, 0.6], np.float32)))[
            ..., None
        ]
    )
    tiny = np.asarray(cv2.resize(np.clip(shaded, 0, 1), small, interpolation=cv2.INTER_AREA), np.float32)
    picture = Image.fromarray(np.round(tiny * 255).astype(np.uint8)).quantize(
        20, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    cover = np.asarray(cv2.resize(canvas.alpha, small, interpolation=cv2.INTER_AREA)) > 0.5
    rgb = (
        np.asarray(
            cv2.resize(np.asarray(picture.convert("RGB")), (width, height), interpolation=cv2.INTER_NEAREST), np.float32
        )
        / 255
    )
    if {"lego", "voxel", "minecraft"} & set(canvas.wish.words):
        rgb = rgb * _studs(canvas.size, small)[..., None]
    alpha = np.asarray(
        cv2.resize(cover.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST), np.float32
    )
    return Painted(np.clip(rgb, 0, 1), alpha)


def _studs(size: tuple[int, int], blocks: tuple[int, int]) -> Field:
    """Light and shade of square bricks with a round stud each."""
    x, y = np.meshgrid(
        np.linspace(0, blocks[0], size[0], endpoint=False) % 1 - 0.5,
        np.linspace(0, blocks[1], size[1], endpoint=False) % 1 - 0.5,
    )
    radius = np.hypot(x, y)
    stud = np.exp(-(((radius - 0.31) / 0.06) ** 2)) * (-(x + y)) * 1.1
    edge = np.where(np.maximum(np.abs(x), np.abs(y)) > 0.45, -0.16, 0.0)
    return (1 + stud + edge).astype(np.float32)


def neon(canvas: Canvas) -> Painted:
    unit = canvas.unit
    light = luminance(smoothed(canvas.rgb, unit=unit, strength=1.0))
    drawn = np.clip(np.abs(blur(light, 1.6 * unit) - blur(light, 4.5 * unit)) * 15 - 0.25, 0, 1) * canvas.alpha
    rim = np.clip(np.abs(blur(canvas.alpha, 1.5 * unit) - blur(canvas.alpha, 5 * unit)) * 3.2, 0, 1)
    first, second, third = (np.array(colour, np.float32) for colour in canvas.wish.palette(3, seed=canvas.seed))
    vivid = [np.clip(colour / max(float(colour.max()), 0.2), 0, 1) ** 1.6 for colour in (first, second, third)]
    flow = clouds(canvas.size, cell=420 * unit, octaves=2, seed=canvas.seed_for(1))[..., None] * 0.5 + 0.5
    hue = vivid[0] * (1 - flow) + vivid[1] * flow
    body = (
        light[..., None] ** 1.4 * (0.35 * hue + 0.28 * vivid[2]) + 0.07 * hue + np.array([0.03, 0.03, 0.09], np.float32)
    )
    body = body * canvas.alpha[..., None] + np.array(NIGHT, np.float32) * (1 - canvas.alpha[..., None])
    tube = np.maximum(drawn * 0.9, rim)[..., None] * hue
    halo = 1.1 * blur(tube, 5 * unit) + 0.7 * blur(tube, 18 * unit)
    core = np.clip(tube * 1.3 + np.maximum(drawn, rim)[..., None] ** 3 * 0.45, 0, 1.4)
    return Painted(np.clip(body + core + halo * (0.35 + 0.65 * canvas.alpha[..., None]), 0, 1), canvas.alpha)


NIGHT = (0.055, 0.05, 0.10)


def oil(canvas: Canvas) -> Painted:
    unit = canvas.unit
    base = saturated(tinted(canvas, canvas.rgb), 1.3)
    for radius in (max(2, round(6 * unit)), max(1, round(3.2 * unit))):
        base = _kuwahara(base, radius)
    # Bristles follow the contours: noise smeared along the brightness's level lines.
    light = blur(luminance(base), 5 * unit)
    down, right = np.gradient(light)
    angle = np.arctan2(right, -down) + clouds(canvas.size, cell=90 * unit, octaves=1, seed=canvas.seed_for(1)) * 0.8
    bristle = clouds(canvas.size, cell=3.0 * unit, octaves=1, seed=canvas.seed_for(2))
    step_x, step_y = np.cos(angle).astype(np.float32) * 1.6 * unit, np.sin(angle).astype(np.float32) * 1.6 * unit
    smear = bristle.copy()
    for count in range(1, 7):
        smear += _warp(bristle, step_x * count, step_y * count) + _warp(bristle, -step_x * count, -step_y * count)
    normal = normals_of(smear * 0.55 + luminance(base) * 10)
    glint = normal @ np.array([-0.45, 0.6, 0.66], np.float32)
    return Painted(np.clip(base * (0.62 + 0.56 * glint[..., None]), 0, 1), canvas.alpha)


def cartoon(canvas: Canvas) -> Painted:
    unit = canvas.unit
    base = saturated(tinted(canvas, smoothed(canvas.rgb, unit=unit, strength=1.8)), 1.55)
    level = blur(luminance(base), 1.5 * unit)[..., None]
    steps = 4.5
    flat = (np.floor(level * steps) + np.clip((level * steps % 1 - 0.5) * 14 + 0.5, 0, 1)) / steps
    shaded = base * (flat + 0.12) / np.maximum(level, 0.05)
    if {"comic", "pop"} & set(canvas.wish.words):
        shaded = shaded * (0.72 + 0.28 * _dots(canvas, level[..., 0]))[..., None]
    light = luminance(smoothed(canvas.rgb, unit=unit, strength=1.3))
    line = np.clip(1 + np.tanh((blur(light, 1.6 * unit) - 0.98 * blur(light, 3.4 * unit) - 0.001) * 60), 0.08, 1)
    rim = np.clip(
        1.4 - np.abs(blur(canvas.alpha, 2.5 * unit) - 0.62) * 0 - (canvas.alpha - blur(canvas.alpha, 5 * unit)) * 3.6,
        0.1,
        1,
    )
    drawn = np.minimum(line, np.where(canvas.alpha > 0.02, rim, 1))[..., None]
    return Painted(np.clip(shaded * drawn + np.array([0.07, 0.06, 0.10], np.float32) * (1 - drawn), 0, 1), canvas.alpha)


def _dots(canvas: Canvas, level: Field) -> Field:
    y, x = np.mgrid[: level.shape[0], : level.shape[1]].astype(np.float32)
    pitch = 11 * canvas.unit
    wave = np.sin((x + y) * np.pi / pitch) * np.sin((x - y) * np.pi / pitch)
    return np.clip((wave + 1.5 * (level - 0.2)) * 6, 0, 1)


def mosaic(canvas: Canvas) -> Painted:
    width, height = canvas.size
    unit = canvas.unit
    rng = np.random.default_rng(canvas.seed_for(1))
    pitch = 19 * unit
    x, y = np.meshgrid(np.arange(0, width + pitch, pitch), np.arange(0, height + pitch, pitch * 0.87))
    x[1::2] += pitch / 2
    seeds = np.stack([x.ravel(), y.ravel()], axis=1) + rng.normal(0, pitch * 0.2, (x.size, 2))
    grid_y, grid_x = np.mgrid[:height, :width]
    distance, nearest = KDTree(seeds).query(np.stack([grid_x.ravel(), grid_y.ravel()], axis=1), k=2, workers=1)
    base = saturated(tinted(canvas, canvas.rgb), 1.4).reshape(-1, 3)
    cell = np.asarray(nearest)[:, 0]
    weight = canvas.alpha.ravel() + 0.01
    total = np.maximum(np.bincount(cell, weight, len(seeds)), 1e-6)
    colour = np.stack([np.bincount(cell, base[:, k] * weight, len(seeds)) / total for k in range(3)], axis=1)
    colour = np.clip(colour * rng.normal(1.0, 0.07, (len(seeds), 1)), 0, 1)
    gap = (np.asarray(distance)[:, 1] - np.asarray(distance)[:, 0]).reshape(height, width)
    tile = np.clip(gap / (2.6 * unit) - 0.35, 0, 1).astype(np.float32)
    dome = np.clip(gap / pitch, 0, 0.5).astype(np.float32) * 10 * unit
    glint = normals_of(blur(dome, unit)) @ np.array([-0.45, 0.6, 0.66], np.float32)
    rgb = colour[cell].reshape(height, width, 3) * (0.5 + 0.72 * glint)[..., None]
    rgb = rgb * tile[..., None] + 0.16 * (1 - tile[..., None])
    return Painted(np.clip(rgb, 0, 1).astype(np.float32), canvas.alpha)


def _kuwahara(rgb: Rgb, radius: int) -> Rgb:
    """Each pixel takes the mean of the calmest of the four squares that it is a corner of."""
    side = radius + 1
    light = luminance(rgb)
    best = np.full(light.shape, np.inf, np.float32)
    result = rgb.copy()
    for anchor in ((0, 0), (side - 1, 0), (0, side - 1), (side - 1, side - 1)):
        mean = np.asarray(cv2.blur(rgb, (side, side), anchor=anchor), np.float32)
        spread = np.asarray(
            cv2.blur(light * light, (side, side), anchor=anchor) - cv2.blur(light, (side, side), anchor=anchor) ** 2
        )
        calmer = spread < best
        best = np.where(calmer, spread, best)
        result = np.where(calmer[..., None], mean, result)
    return result


def _warp(image: Vectors, dx: Field, dy: Field) -> Vectors:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    return np.asarray(cv2.remap(image, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
