"""What is said to a provider: the client's prompt and style as one text, per operation."""

from __future__ import annotations

import re

from app.domain.operations import Operation

_RENDER_SKETCH = (
    "Render this sketch as a clean product photo of one object on a plain background."
    " Keep the outline, the proportions and the number of parts exactly as drawn."
)
_REDRAW = "Redraw this picture."

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def compose(operation: Operation, prompt: str, style: str | None) -> str:
    """The text of a paid call.

    Never empty for operations whose provider requires a prompt, where the input says enough without one; empty
    where the client said nothing and the provider can do without.
    """
    wish, manner = _clean(prompt), _clean(style or "")
    match operation:
        case Operation.IMAGE_TO_IMAGE if not wish:
            wish = _REDRAW
        case Operation.SKETCH_TO_MODEL:
            wish = f"{_RENDER_SKETCH} It shows: {wish}" if wish else _RENDER_SKETCH
        case _:
            pass
    return _with_style(wish, manner)


def _with_style(wish: str, manner: str) -> str:
    if not manner:
        return wish
    if not wish:
        return f"Style: {manner}"
    separator = "" if wish[-1] in ".!?" else "."
    return f"{wish}{separator} Style: {manner}"


def _clean(text: str) -> str:
    """Without control characters, which providers refuse or log badly."""
    return _CONTROL.sub(" ", text).strip()
