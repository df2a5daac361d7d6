"""The pictures and models that a create names: upload tokens, ids of earlier tasks, URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from app.sandbox.providers.tripo_refusals import bad_parameter

VIEWS = ("front", "left", "back", "right")
_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_MAX_PICTURES = {"seedream_v5": 4, "chat_image_2": 16, "chat_image_2.5_flare": 16, "chat_image_2.5_sunburst": 16}
_DEFAULT_MAX_PICTURES = 10


@dataclass(frozen=True, slots=True)
class Reference:
    value: str
    what: Literal["picture", "model", "views"]


def is_task_id(value: str) -> bool:
    """A bare UUID means a task, ``file_…`` an upload, ``http…`` a URL."""
    return _UUID.match(value) is not None


def references(kind: str, body: Mapping[str, Any]) -> list[Reference]:
    """What the body of a create names. Raises TripoRefusal for a wrong shape."""
    match kind:
        case "image-to-model" | "image-to-multiview":
            return [_reference(body.get("input"), "picture")]
        case "multiview-to-model":
            return view_references(body.get("inputs"))
        case "image-to-image":
            return _pictures(body)
        case "edit-multiview":
            return [_reference(body.get("input"), "views")]
        case "texture":
            return [_reference(body.get("input"), "model"), *_prompt_pictures(body.get("texture_prompt"))]
        case "convert" | "import":
            return [_reference(body.get("input"), "model")]
        case _:
            return []


def view_references(inputs: object) -> list[Reference]:
    """The given views in the order front, left, back, right; or the one task that has them all."""
    if not isinstance(inputs, list) or not inputs:
        raise bad_parameter("inputs must be a list")
    items = cast("list[Any]", inputs)
    if len(items) == 1 and isinstance(items[0], dict) and set(items[0]) == {"task_id"}:
        return [_reference(items[0]["task_id"], "views")]
    return [reference for reference in by_view(items) if reference is not None]


def by_view(items: list[Any]) -> list[Reference | None]:
    """Front, left, back, right from either form of ``inputs``."""
    views: dict[str, Any]
    if all(isinstance(item, dict) for item in items):
        named = cast("list[dict[str, Any]]", items)
        names = [name for item in named for name in item]
        if any(len(item) != 1 for item in named) or len(set(names)) != len(names) or not set(names) <= set(VIEWS):
            raise bad_parameter("inputs takes each of front, left, back, right at most once")
        views = {name: value for item in named for name, value in item.items()}
    elif any(isinstance(item, dict) for item in items) or len(items) != len(VIEWS):
        raise bad_parameter("inputs takes four slots, or objects with one view each, and never both")
    else:
        views = dict(zip(VIEWS, items, strict=True))
    if not views.get("front"):
        raise bad_parameter("the front view is required")
    if sum(1 for value in views.values() if value) < 2:
        raise bad_parameter("at least two views are required")
    return [_reference(views[name], "picture") if views.get(name) else None for name in VIEWS]


def _pictures(body: Mapping[str, Any]) -> list[Reference]:
    given: object = body.get("inputs", [body.get("input")])
    limit = _MAX_PICTURES.get(str(body.get("model", "seedream_v5")), _DEFAULT_MAX_PICTURES)
    if not isinstance(given, list) or not 1 <= len(cast("list[Any]", given)) <= limit:
        raise bad_parameter(f"inputs takes 1 to {limit} pictures")
    return [_reference(value, "picture") for value in cast("list[Any]", given)]


def _prompt_pictures(prompt: object) -> list[Reference]:
    if not isinstance(prompt, dict):
        return []
    fields = cast("dict[str, Any]", prompt)
    several: object = fields.get("images") or []
    if not isinstance(several, list) or len(cast("list[Any]", several)) not in (0, len(VIEWS)):
        raise bad_parameter("texture_prompt.images takes four pictures: front, left, back, right")
    named = [*cast("list[Any]", several), fields.get("image"), fields.get("style_image")]
    return [_reference(value, "picture") for value in named if value]


def _reference(value: object, what: Literal["picture", "model", "views"]) -> Reference:
    if not isinstance(value, str) or not value:
        raise bad_parameter("input is required: a file token, a task id or a URL")
    if value.startswith("data:"):
        raise bad_parameter("data URLs are not supported")
    return Reference(value, what)
