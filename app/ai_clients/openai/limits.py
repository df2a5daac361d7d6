"""What OpenAI Images takes. Source: OpenAI's Images reference, gpt-image-2."""

from __future__ import annotations

from collections.abc import Mapping

from app.ai_clients.base import Capability
from app.ai_clients.limits import Limits

PROMPT_CHARACTERS = 32_000

CAPABILITIES: Mapping[Capability, Limits] = {
    capability: Limits(PROMPT_CHARACTERS)
    for capability in (Capability.TEXT_TO_IMAGE, Capability.IMAGE_TO_IMAGE, Capability.SKETCH_TO_IMAGE)
}
