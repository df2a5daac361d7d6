"""From what a service wants made to the body of a Tripo create. Pure; only what differs from a default is sent.

Source: Tripo v3 reference. Some models refuse parameters that they do not know even at their default, and the
retired ``/models/refine`` is never called: a draft is refined by a new texture.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.ai_clients.base import Capability, Estimate, FileInput, ModelRequest, PreparedCall
from app.ai_clients.errors import Refused
from app.ai_clients.tripo.limits import PROMPT_CHARACTERS, SKETCH_PROMPT_CHARACTERS
from app.ai_clients.tripo.prices import (
    PRICE_VERSION,
    credits_to_micros,
    family_of,
    model_credits,
    sketch_credits,
    texture_credits,
)
from app.domain.operations import ModelOptions, View
from app.errors import ErrorCode

PATHS: Mapping[Capability, str] = {
    Capability.TEXT_TO_MODEL: "/generation/text-to-model",
    Capability.IMAGE_TO_MODEL: "/generation/image-to-model",
    Capability.MULTIVIEW_TO_MODEL: "/generation/multiview-to-model",
    Capability.SKETCH_TO_IMAGE: "/generation/image-to-image",
    Capability.IMPORT_MODEL: "/models/import",
    Capability.TEXTURE_MODEL: "/models/texture",
}

_VIEWS: tuple[View, ...] = ("front", "left", "back", "right")
_DEFAULT_QUALITY = "standard"
_REFINED_QUALITY = "detailed"
_FAST = "fast"  # a texture quality that only the newest texture version knows
_MIN_VIEWS = 2

# by the beginning of the version: (least, most) faces
_FACE_LIMITS: tuple[tuple[str, tuple[int, int]], ...] = (
    ("P1", (50, 20_000)),
    ("P2", (50, 50_000)),
    ("v2", (1, 500_000)),
    ("v3.0", (1, 1_000_000)),
    ("v3", (1, 1_500_000)),
)


@dataclass(frozen=True, slots=True)
class Versions:
    """The configured model versions."""

    model: str
    texture: str

    def model_of(self, options: ModelOptions) -> str:
        return options.model_version or self.model

    def is_configured(self, body: Mapping[str, Any]) -> bool:
        return body.get("model") in (None, self.model, self.texture)


def check(spec: ModelRequest, versions: Versions) -> None:
    """Refuse what Tripo would, before anything is uploaded. Raises Refused."""
    if spec.capability not in PATHS:
        raise _refused("This provider makes no such pictures.")
    prompt = spec.prompt or ""
    limit = SKETCH_PROMPT_CHARACTERS if spec.capability is Capability.SKETCH_TO_IMAGE else PROMPT_CHARACTERS
    if len(prompt) > limit:
        raise _refused(f"The prompt, with its style, must have at most {limit} characters.")
    if spec.capability in (Capability.TEXT_TO_MODEL, Capability.SKETCH_TO_IMAGE) and not prompt:
        raise _refused("A prompt is needed.")
    _check_sources(spec)
    least, most = _face_limits(versions.model_of(spec.options))
    if spec.options.face_limit is not None and not least <= spec.options.face_limit <= most:
        raise _refused(f"This model takes a face_limit between {least} and {most}.")


def _check_sources(spec: ModelRequest) -> None:
    match spec.capability:
        case Capability.IMAGE_TO_MODEL | Capability.SKETCH_TO_IMAGE:
            if spec.source_task_id is None and "front" not in spec.views:
                raise _refused("A picture is needed.")
        case Capability.MULTIVIEW_TO_MODEL:
            if "front" not in spec.views or len(spec.views) < _MIN_VIEWS:
                raise _refused("The front and at least one more view are needed.")
        case Capability.IMPORT_MODEL:
            if spec.model_file is None:
                raise _refused("A model file is needed.")
        case Capability.TEXTURE_MODEL:
            if spec.source_task_id is None:
                raise _refused("A draft is needed.")
        case _:
            pass


def _face_limits(model: str) -> tuple[int, int]:
    return next((limits for prefix, limits in _FACE_LIMITS if model.startswith(prefix)), (1, 2_000_000))


def pictures_of(spec: ModelRequest) -> Mapping[View, FileInput]:
    """The pictures that the create will name: none where a task of Tripo's, or for a texture a text, says it all."""
    if spec.source_task_id is None or (spec.capability is Capability.TEXTURE_MODEL and not spec.prompt):
        return spec.views
    return {}


def build(spec: ModelRequest, tokens: Mapping[str, str], versions: Versions, chance: random.Random) -> PreparedCall:
    """The create for a checked spec. ``tokens`` are fresh uploads by view name, or ``model`` for a mesh."""
    body: dict[str, Any]
    match spec.capability:
        case Capability.TEXT_TO_MODEL:
            body = {"prompt": spec.prompt, **_model_fields(spec.options, versions, chance, from_image=False)}
        case Capability.IMAGE_TO_MODEL:
            source = spec.source_task_id or tokens["front"]
            body = {"input": source, **_model_fields(spec.options, versions, chance, from_image=True)}
        case Capability.MULTIVIEW_TO_MODEL:
            inputs = [{view: tokens[view]} for view in _VIEWS if view in tokens]
            body = {"inputs": inputs, **_model_fields(spec.options, versions, chance, from_image=True)}
        case Capability.SKETCH_TO_IMAGE:
            source = spec.source_task_id or tokens["front"]
            body = {"input": source, "sketch_to_render": True, "prompt": spec.prompt, "output_format": "png"}
        case Capability.IMPORT_MODEL:
            body = {"input": tokens["model"]}
        case Capability.TEXTURE_MODEL:
            body = _texture_fields(spec, tokens, versions, chance)
        case Capability.TEXT_TO_IMAGE | Capability.IMAGE_TO_IMAGE:
            raise _refused("This provider makes no such pictures.")
    return PreparedCall(spec.capability, PATHS[spec.capability], body, _fingerprint(spec, body, tokens))


def _model_fields(
    options: ModelOptions, versions: Versions, chance: random.Random, *, from_image: bool
) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": versions.model_of(options), "model_seed": _seed(chance)}
    if options.texture is False:
        # PBR alone would bring the texture, and its price, back
        fields |= {"texture": False, "pbr": False}
    elif options.pbr is False:
        fields["pbr"] = False
    if options.face_limit is not None:
        fields["face_limit"] = options.face_limit
    if options.auto_size:
        fields["auto_size"] = True
    if _is_textured(options) and options.texture_quality not in (None, _DEFAULT_QUALITY):
        fields["texture_quality"] = options.texture_quality
        if options.texture_quality == _FAST:
            fields["texture_version"] = versions.texture
    if from_image and options.orientation not in (None, "default"):
        fields["orientation"] = options.orientation
    return fields


def _texture_fields(
    spec: ModelRequest, tokens: Mapping[str, str], versions: Versions, chance: random.Random
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "input": spec.source_task_id,
        "model": versions.texture,
        "texture": True,  # said aloud: without it the same work was billed twice
        "pbr": spec.options.pbr is not False,
        "texture_quality": spec.options.texture_quality or _REFINED_QUALITY,
        "texture_seed": _seed(chance),
    }
    if spec.prompt:
        fields["texture_prompt"] = {"text": spec.prompt}
    elif "front" in tokens:
        fields["texture_prompt"] = {"image": tokens["front"]}
    return fields


def _is_textured(options: ModelOptions) -> bool:
    return options.texture is not False


def _seed(chance: random.Random) -> int:
    """An int32 that no other call of ours has, in all likelihood: it finds the call again."""
    return chance.randint(-(2**31), 2**31 - 1)


def _fingerprint(spec: ModelRequest, body: Mapping[str, Any], tokens: Mapping[str, str]) -> dict[str, Any]:
    seeds = {name: body[name] for name in ("model_seed", "texture_seed") if name in body}
    return {"kind": spec.capability.value, "tokens": sorted(tokens.values()), **seeds}


def pool_of(spec: ModelRequest, versions: Versions) -> str:
    """The group of Tripo's concurrency limits that a call counts in."""
    match spec.capability:
        case Capability.SKETCH_TO_IMAGE:
            return "tripo_image"
        case Capability.TEXTURE_MODEL | Capability.IMPORT_MODEL:
            # an import is free and belongs to the refinement that follows it in the same job
            return "tripo_texture"
        case _:
            return "tripo_h" if family_of(versions.model_of(spec.options)) == "H" else "tripo_p"


def estimate(spec: ModelRequest, versions: Versions) -> Estimate:
    """What a call will take if it succeeds, by the price table."""
    options = spec.options
    match spec.capability:
        case Capability.SKETCH_TO_IMAGE:
            credit = sketch_credits()
        case Capability.IMPORT_MODEL:
            return Estimate(0, PRICE_VERSION)
        case Capability.TEXTURE_MODEL:
            credit = texture_credits(options.texture_quality or _REFINED_QUALITY)
        case _:
            credit = model_credits(
                versions.model_of(options),
                from_text=spec.capability is Capability.TEXT_TO_MODEL,
                textured=_is_textured(options),
                texture_quality=options.texture_quality,
            )
    return Estimate(credits_to_micros(credit), PRICE_VERSION)


def _refused(detail: str) -> Refused:
    return Refused(ErrorCode.PROVIDER_REQUEST_REFUSED, detail)
