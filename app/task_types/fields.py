"""Field types that several task types share. Text is untrusted: what a database or a provider chokes on stops here."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from app.domain.task_ids import TASK_ID_PATTERN

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _plain_text(value: str) -> str:
    if _UNPRINTABLE.search(value):
        raise ValueError("Control characters are not accepted.")
    return value


def _blank_is_absent(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _whole(value: object) -> object:
    """In JSON 5.0 is an integer, and there are clients that write it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Text = AfterValidator(_plain_text)
# stripping empties a text of blanks; the document says so by a pattern, where U+0085 is no \s to every reader
_NotBlank = Field(json_schema_extra={"pattern": r"[^\s\u0085]"})
_Blank = BeforeValidator(_blank_is_absent)
Whole = BeforeValidator(_whole)

TaskId = Annotated[
    str,
    Field(
        pattern=TASK_ID_PATTERN,
        max_length=64,
        description="Chosen by the client, a UUID is recommended. Belongs to one user for ever; several requests may"
        " use it.",
    ),
]
_MOST_CHARACTERS = 32_000  # of a prompt; a provider may take fewer
Prompt = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_MOST_CHARACTERS), _Text, _NotBlank
]
OptionalPrompt = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, max_length=_MOST_CHARACTERS), _Text] | None, _Blank
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
ImageSize = Annotated[str, Field(pattern=r"^(auto|[0-9]{2,5}x[0-9]{2,5})$")]
Choice = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Which values there are is the provider's choice.")
]
