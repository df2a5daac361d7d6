"""The studio of every picture: a plain sweep of paper, a soft shadow, and the mark that says where it came from."""

from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from app.sandbox.media.arrays import Field, Rgb
from app.sandbox.media.words import Colour

MARK: Final = "sandbox"
_MARK_CONTRAST: Final = 0.13


def sweep(size: tuple[int, int], colour: Colour) -> Rgb:
    """A backdrop of `size` (width, height) in one colour, lit from above the middle; shape (h, w, 3), sRGB 0–1."""
    width, height = size
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(-1, 1, width), indexing="ij")
    glow = 1.025 - 0.07 * (np.hypot(x * 0.9, (y - 0.42) * 1.5)) ** 2 - 0.02 * y
    return np.clip(np.asarray(colour, np.float32) * glow[..., None], 0, 1).astype(np.float32)


def shadow(alpha: Field) -> Field:
    """A soft contact shadow under a subject that stands in the frame; 0 none – 1 black, same shape as `alpha`."""
    height = alpha.shape[0]
    rows = np.flatnonzero((alpha > 0.5).any(axis=1))
    columns = np.flatnonzero((alpha > 0.5).any(axis=0))
    if not rows.size:
        return np.zeros_like(alpha)
    foot = int(rows[-1])
    lowest = (alpha[max(0, foot - (rows.size // 8)) : foot + 1] > 0.5).any(axis=0)
    floor = np.zeros_like(alpha)
    thick = max(2, columns.size // 40)
    floor[max(0, foot - thick) : min(height, foot + thick)] = lowest
    # Flat and wide: the floor is seen at a low angle.
    reach = columns.size
    wide = ndimage.gaussian_filter(floor, (0.045 * reach, 0.11 * reach), mode="constant")
    tight = ndimage.gaussian_filter(floor, (0.014 * reach, 0.035 * reach), mode="constant")
    return (0.17 * wide / max(float(wide.max()), 1e-6) + 0.13 * tight / max(float(tight.max()), 1e-6)).astype(
        np.float32
    )


def stamp(picture: Image.Image) -> Image.Image:
    """The picture with a small, pale "sandbox" in its lower right corner; alpha is set where it was clear."""
    width, height = picture.size
    text_size = max(9, round(min(width, height) * 0.022))
    gap = round(text_size * 0.7)
    box = (max(0, width - 6 * text_size), max(0, height - 2 * text_size), width, height)
    corner = picture.crop(box)
    canvas = Image.new("L", corner.size, 0)
    font = ImageFont.load_default(text_size)
    place = (corner.width - gap, corner.height - gap)
    ImageDraw.Draw(canvas).text(place, MARK, fill=255, font=font, anchor="rb")
    ink = np.asarray(canvas, np.float32)[..., None] / 255 * _MARK_CONTRAST
    pixels = np.asarray(corner.convert("RGBA"), np.float32) / 255
    solid = pixels[..., 3:] > 0.5
    dark = bool(solid.any()) and float(pixels[..., :3][solid[..., 0]].mean()) < 0.35
    colour = pixels[..., :3] * (1 - ink) + (1.0 if dark else 0.0) * ink
    if picture.mode == "RGBA":
        colour = np.where((pixels[..., 3:] < 0.02) & (ink > 0), 0.5, colour)
        # Below half: the mark must never count as subject.
        alpha = np.maximum(pixels[..., 3:], ink / _MARK_CONTRAST * 0.22)
        colour = np.concatenate([colour, alpha], axis=-1)
    marked = picture.copy()
    marked.paste(Image.fromarray(np.round(colour * 255).astype(np.uint8)), box[:2])
    return marked
