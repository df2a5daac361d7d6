"""What a provider takes: limits that a request is held to before anything is written or paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request, as a client is told it."""

    field: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one capability. ``prompt_characters`` counts prompt and style as they are sent together; ``options`` is
    what the options that a client set have to be."""

    prompt_characters: int | None = None
    options: type[BaseModel] | None = None

    def prompt_faults(self, prompt: str, composed: str) -> list[Fault]:
        """``composed`` is the text that the provider gets for the client's prompt."""
        most = self.prompt_characters
        if most is None or not prompt:
            return []
        if len(prompt) > most:
            return [Fault("prompt", "string_too_long", f"String should have at most {most} characters")]
        if len(composed) > most:
            return [Fault("body", "value_error", f"Prompt and style together may have {most} characters.")]
        return []

    def option_faults(self, options: Mapping[str, Any]) -> list[Fault]:
        """``options`` are those that were set."""
        if self.options is None:
            return []
        try:
            self.options.model_validate(dict(options))
        except ValidationError as error:
            return [
                Fault(
                    ".".join(str(part) for part in fault["loc"]) or "body",
                    fault["type"],
                    fault["msg"].removeprefix("Value error, "),
                )
                for fault in error.errors(include_url=False, include_input=False, include_context=False)
            ]
        return []
