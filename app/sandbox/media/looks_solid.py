"""Looks that make the subject a thing in a studio: its relief is lit anew."""

import cv2
import numpy as np

from app.sandbox.media.arrays import Field, Rgb
from app.sandbox.media.canvas import Canvas, Painted, tinted
from app.sandbox.media.filters import blur, luminance, saturated, smoothed
from app.sandbox.media.lighting import FILL, KEY, shade, to_linear, to_srgb
from app.sandbox.media.materials import material_of
from app.sandbox.media.noise import clouds
from app.sandbox.media.relief import normals_of


def clay(canvas: Canvas) -> Painted:
    """A toy of soft plastic or clay in the picture's own colours."""
    base = saturated(tinted(canvas, smoothed(canvas.rgb, unit=canvas.unit, strength=1.2)), 1.35)
    base = np.clip((base - 0.5) * 0.92 + 0.54, 0, 1)
    dents = clouds(canvas.size, cell=26 * canvas.unit, octaves=2, seed=canvas.seed_for(1)) * 1.6 * canvas.unit
    return Painted(_lit(canvas, base, roughness=0.5, metallic=0.0, detail=26.0, bumps=dents), canvas.alpha)


def photograph(canvas: Canvas) -> Painted:
    """The picture itself, graded and lit as a product shot."""
    base = saturated(tinted(canvas, canvas.rgb) * 0.35 + canvas.rgb * 0.65, 1.12)
    lit = _lit(canvas, base, roughness=0.6, metallic=0.0, detail=5.0, bumps=np.zeros_like(canvas.alpha))
    return Painted(base * 0.55 + lit * 0.45, canvas.alpha)


def material(canvas: Canvas) -> Painted:
    """The subject carved, cast or knitted from the material that the prompt names."""
    name = canvas.wish.material or canvas.wish.look
    made_of = material_of(name, canvas.wish, seed=canvas.seed)
    width, height = canvas.size
    scale = 1.0 / max(width, height)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) * scale, np.arange(height, dtype=np.float32) * scale)
    points = np.stack([x - 0.5 * width * scale, 1 - y, canvas.relief * scale * 1.3], axis=-1).reshape(-1, 3)
    inside = canvas.alpha.reshape(-1) > 0.003
    grain = np.full(width * height, 0.5, np.float32)
    grain[inside] = made_of.grain(points[inside] * 1.25, canvas.seed_for(2))
    grain = grain.reshape(height, width)
    light = _local_light(canvas)
    share = made_of.picture
    value = np.clip(grain * (1 - share) + share * light, 0, 1)
    base = made_of.colour_at(value.reshape(-1)).reshape(height, width, 3)
    bumps = (grain - 0.5) * made_of.bump * 9 * canvas.unit
    lit = _lit(
        canvas,
        base,
        roughness=made_of.roughness,
        metallic=made_of.metallic,
        detail=30.0,
        bumps=bumps,
        calm=made_of.metallic,
    )
    lit = np.clip(lit + made_of.glow * base * (1 - luminance(lit)[..., None]), 0, 1)
    return Painted(lit, canvas.alpha)


def _local_light(canvas: Canvas) -> Field:
    """The picture's light and dark, stretched to fill 0–1 over the subject."""
    light = luminance(canvas.rgb)
    inside = light[canvas.alpha > 0.5]
    low, high = np.quantile(inside, [0.04, 0.96]) if inside.size else (0.0, 1.0)
    return np.clip((light - low) / max(float(high - low), 0.12), 0, 1)


def _lit(
    canvas: Canvas, base: Rgb, *, roughness: float, metallic: float, detail: float, bumps: Field, calm: float = 0.0
) -> Rgb:
    """`detail`: how high the picture's features stand out, in thousandths of the frame. `calm` softens them."""
    light = luminance(smoothed(canvas.rgb, unit=canvas.unit, strength=1.0))
    fine, broad = blur(light, (2.0 + 3.0 * calm) * canvas.unit), blur(light, 45 * canvas.unit)
    body = blur(canvas.relief, 5 * canvas.unit) * 0.85
    height = body + np.tanh((fine - broad) * 2.5) * detail * canvas.unit + bumps
    normal = normals_of(height)
    turn = np.radians((canvas.seed_for(3) % 61) - 30)
    spin = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    flat = normal.reshape(-1, 3)
    inside = canvas.alpha.reshape(-1) > 0.003
    view = np.array([[0.0, 0.0, 1.0]], np.float32)
    # Folds are darker: what lies below its surroundings sees less of the room.
    open_sky = 1 - np.clip((blur(height, 16 * canvas.unit) - height) / (30 * canvas.unit), 0, 0.4)
    result = to_linear(base).reshape(-1, 3)
    result[inside] = shade(
        result[inside],
        flat[inside],
        view,
        metallic=metallic,
        roughness=roughness,
        openness=open_sky.reshape(-1)[inside],
        key=(KEY @ spin.T),
        fill=(FILL @ spin.T),
    )
    return to_srgb(result).reshape(base.shape)


def sharpened(rgb: Rgb) -> Rgb:
    soft = np.asarray(cv2.GaussianBlur(rgb, (0, 0), 1.4), np.float32)
    return np.clip(rgb + 0.45 * (rgb - soft), 0, 1)
