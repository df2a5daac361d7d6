"""What Tripo takes. Source: Tripo v3's reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from app.ai_clients.base import Capability
from app.ai_clients.limits import Limits

ModelVersion = Literal["v3.1-20260211", "v3.0-20250812", "v2.5-20250123", "P1-20260311", "P2-20260801"]
TextureVersion = Literal["v3.5-20260815", "v3.0-20250812", "v2.5-20250123"]

PROMPT_CHARACTERS = 1_024
SKETCH_PROMPT_CHARACTERS = 1_800

# calls that an account may have under way, by pool
CALLS_AT_A_TIME: Mapping[str, int] = {"tripo_h": 10, "tripo_p": 5, "tripo_image": 1, "tripo_texture": 5}

LEAST_POLL_SECONDS = 1.0  # no more often than this

_MODEL = Limits(PROMPT_CHARACTERS)

CAPABILITIES: Mapping[Capability, Limits] = {
    Capability.TEXT_TO_MODEL: _MODEL,
    Capability.IMAGE_TO_MODEL: _MODEL,
    Capability.MULTIVIEW_TO_MODEL: _MODEL,
    Capability.SKETCH_TO_IMAGE: Limits(SKETCH_PROMPT_CHARACTERS),
    Capability.IMPORT_MODEL: Limits(),
    Capability.TEXTURE_MODEL: _MODEL,
}
