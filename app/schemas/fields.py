"""Field types that several bodies share. Text is untrusted: what a database or a provider chokes on stops here."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from app.domain.task_ids import TASK_ID_PATTERN

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SIZE = re.compile(r"([0-9]{3,4})x([0-9]{3,4})")

_EDGE_STEP = 16
_LONGEST_EDGE = 3840
_STEEPEST_RATIO = 3
_PIXELS = range(655_360, 8_294_400 + 1)


def _plain_text(value: str) -> str:
    if _UNPRINTABLE.search(value):
        raise ValueError("Control characters are not accepted.")
    return value


def _blank_is_absent(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _whole(value: object) -> object:
    """In JSON 5.0 is an integer, and there are clients that write it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _image_size(value: str) -> str:
    """Source: OpenAI Images reference, gpt-image-2: multiples of 16, ratio up to 1:3, bounded edge and area."""
    if value == "auto":
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError("Must be auto or WIDTHxHEIGHT.")
    short, long = sorted((int(found[1]), int(found[2])))
    if short % _EDGE_STEP or long % _EDGE_STEP or long > _LONGEST_EDGE:
        raise ValueError(f"Both sides must be multiples of {_EDGE_STEP}, at most {_LONGEST_EDGE}.")
    if long > _STEEPEST_RATIO * short or short * long not in _PIXELS:
        raise ValueError(f"At most 1:{_STEEPEST_RATIO}, with {_PIXELS.start} to {_PIXELS.stop - 1} pixels.")
    return value


_Text = AfterValidator(_plain_text)
# stripping empties a text of blanks; the document says so by a pattern, where U+0085 is no \s to every reader
_NotBlank = Field(json_schema_extra={"pattern": r"[^\s\u0085]"})
_Blank = BeforeValidator(_blank_is_absent)
Whole = BeforeValidator(_whole)

TaskId = Annotated[
    str,
    Field(
        pattern=TASK_ID_PATTERN,
        description="Chosen by the client, a UUID is recommended. Belongs to one user for ever; several requests may"
        " use it.",
    ),
]
ImagePrompt = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=32_000), _Text, _NotBlank
]
ModelPrompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_024), _Text, _NotBlank]
OptionalModelPrompt = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, max_length=1_024), _Text] | None, _Blank
]
Style = Annotated[Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), _Text] | None, _Blank]
AssetUrl = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2_048,
        description="Public, signed or authenticated Storage URL of this project, or a content link of the gateway."
        " It is never fetched as given.",
    ),
]
Provider = Annotated[
    str | None, Field(pattern=r"^[a-z0-9_-]{1,32}$", description="Default: the operation's own provider.")
]
ImageSize = Annotated[str, AfterValidator(_image_size)]
