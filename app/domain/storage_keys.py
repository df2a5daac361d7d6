"""Every key that we put into a bucket is made here. Only ``[A-Za-z0-9._/-]`` ever appears in one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from app.domain.asset_kinds import AssetKind

_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_TRASH = ".trash/"


@dataclass(frozen=True, slots=True)
class Owner:
    """The project or space that owns a task; neither for a task of a user alone."""

    project_id: UUID | None = None
    space_id: UUID | None = None

    @property
    def prefix(self) -> str:
        """Where a task's outputs go, before the usual layout."""
        if self.project_id is not None:
            return f"projects/{self.project_id}/tasks"
        if self.space_id is not None:
            return f"spaces/{self.space_id}/tasks"
        return ""


def output_key(kind: AssetKind, task_id: str, number: int, extension: str, owner: Owner | None = None) -> str:
    """The key that its kind gives an output: ``concepts/<task_id>/0.png``, ``models/<task_id>/model_1.glb``, …; behind
    ``projects/<project_id>/tasks/<task_id>/`` or ``spaces/<space_id>/tasks/<task_id>/`` for an owned task.

    ``number`` counts from 0. Raises ValueError for what can not be part of a key.
    """
    if number < 0:
        raise ValueError("output numbers count from 0")
    prefix = "" if owner is None else owner.prefix
    path = kind.key(task_id, number, extension)
    return _checked(f"{prefix}/{task_id}/{path}" if prefix else path)


def input_key(user_id: UUID, asset_id: UUID, extension: str) -> str:
    """``<user_id>/<asset_id>.<ext>`` in the first input bucket, where a file goes that a client uploads through us:
    beside what the user uploads there directly. Raises ValueError."""
    return _checked(f"{user_id}/{asset_id}.{extension}")


def thumbnail_key(key: str) -> str:
    """``<name>.thumb.webp`` beside a file of ours. Raises ValueError."""
    return _derived(key, "thumb")


def preview_key(key: str) -> str:
    """``<name>.preview.webp`` beside a file of ours. Raises ValueError."""
    return _derived(key, "preview")


def trash_key(key: str) -> str:
    """``.trash/<original key>``. Raises ValueError, also for what lies there already."""
    if key.startswith(_TRASH):
        raise ValueError("this key is in the trash")
    return _checked(f"{_TRASH}{key}")


def _derived(key: str, what: str) -> str:
    folder, slash, name = _checked(key).rpartition("/")
    stem = name.rpartition(".")[0] or name
    return f"{folder}{slash}{stem}.{what}.webp"


def _checked(key: str) -> str:
    """What reaches this module was validated where it came in; a key is too late a place to find out."""
    for segment in key.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise ValueError("a key has a part that storage does not take")
    return key
