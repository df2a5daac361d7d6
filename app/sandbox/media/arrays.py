"""Names for the arrays that pictures and meshes are made of."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Mask: TypeAlias = NDArray[np.bool_]
"""Shape (h, w)."""
Field: TypeAlias = NDArray[np.floating[Any]]
"""One number per pixel, shape (h, w), or per point, shape (n,)."""
Rgb: TypeAlias = NDArray[np.floating[Any]]
"""sRGB 0–1 unless said otherwise; the last axis has 3."""
Vectors: TypeAlias = NDArray[np.floating[Any]]
"""Points or directions; the last axis has 2–4."""
Pixels: TypeAlias = NDArray[np.uint8]
"""RGB 0–255, shape (h, w, 3)."""
Triangles: TypeAlias = NDArray[np.int64]
"""Indices of points, shape (n, 3); n pairs, shape (n, 2), for edges."""
