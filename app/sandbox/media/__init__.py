"""Pictures and meshes of the sandbox: real work on the picture that was sent, no model weights.

What draws is loaded by its first use: SciPy and OpenCV take seconds, which a sandbox that draws nothing never needs.
"""

from __future__ import annotations

from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.sandbox.media.images import paint_prompt, render_sketch, transform_photo
    from app.sandbox.media.models import build_model, render_preview, retexture_model
    from app.sandbox.media.preview import texture_pixels
    from app.sandbox.media.solid import vertex_normals

__all__ = [
    "build_model",
    "paint_prompt",
    "render_preview",
    "render_sketch",
    "retexture_model",
    "texture_pixels",
    "transform_photo",
    "vertex_normals",
]

_HOMES = {
    "build_model": "models",
    "paint_prompt": "images",
    "render_preview": "preview",
    "render_sketch": "images",
    "retexture_model": "retexture",
    "texture_pixels": "preview",
    "transform_photo": "images",
    "vertex_normals": "solid",
}

_ONE_AT_A_TIME = RLock()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - each has the type that is imported above
    if name not in _HOMES:
        raise AttributeError(name)
    with _ONE_AT_A_TIME:  # builder threads that load parts of one library side by side may see them half made
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
