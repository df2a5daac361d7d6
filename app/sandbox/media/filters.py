"""Filters that several looks share; pictures are sRGB 0–1."""

import cv2
import numpy as np

from app.sandbox.media.arrays import Field, Rgb, Vectors


def blur(image: Vectors, sigma: float) -> Vectors:
    """Gaussian, `sigma` in pixels; wide ones at a size where they are cheap."""
    scale = 4 if sigma > 16 else 2 if sigma > 7 else 1
    height, width = image.shape[:2]
    if scale == 1 or min(height, width) < 64:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3)), np.float32)
    small = cv2.resize(image, (width // scale, height // scale), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), sigma / scale)
    return np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def luminance(rgb: Rgb) -> Field:
    """Perceived brightness 0–1."""
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def smoothed(rgb: Rgb, *, unit: float, strength: float) -> Rgb:
    """Flat areas with sharp edges: bilateral filtering at a size where it is cheap."""
    height, width = rgb.shape[:2]
    scale = min(1.0, 520 / max(height, width))
    small = np.asarray(
        cv2.resize(rgb, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA), np.float32
    )
    for _ in range(3):
        small = np.asarray(cv2.bilateralFilter(small, 7, 0.09 * strength, 4.0 * strength), np.float32)
    large = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    # One pass against the sharp picture brings its edges back.
    detail = blur(rgb - large, 1.2 * unit)
    keep = np.clip(np.abs(detail).max(axis=-1, keepdims=True) * 9 - 0.35, 0, 1)
    return np.clip(large + (rgb - large) * keep, 0, 1)


def saturated(rgb: Rgb, factor: float) -> Rgb:
    grey = luminance(rgb)[..., None]
    return np.clip(grey + (rgb - grey) * factor, 0, 1)
