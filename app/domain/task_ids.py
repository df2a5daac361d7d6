"""Task ids are chosen by clients; this is what one may look like."""

from __future__ import annotations

import re

TASK_ID_PATTERN = r"^[A-Za-z0-9_-]{8,64}$"

_TASK_ID = re.compile(TASK_ID_PATTERN)


def is_task_id(text: str) -> bool:
    """Whether a text of unknown origin can be a task's id. No other text needs to be looked up."""
    return _TASK_ID.fullmatch(text) is not None
