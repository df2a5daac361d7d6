"""What the document says of a prompt is what the gateway takes."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from app.task_types import fields
from pydantic import TypeAdapter, ValidationError

# Unicode's White_Space, which stripping takes away
_BLANKS = [chr(code) for code in range(sys.maxunicode) if not chr(code).strip() and not 0x1C <= code <= 0x1F]


def test_a_prompt_of_blanks_is_refused_by_the_document_too() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(fields.Prompt)
    pattern = adapter.json_schema()["pattern"]
    for blank in _BLANKS:
        with pytest.raises(ValidationError):
            adapter.validate_python(blank)
        assert re.search(pattern, blank * 2) is None, repr(blank)
    assert re.search(pattern, f"{_BLANKS[0]}a cat") is not None
