"""Every key in the bucket is made here. Only ``[A-Za-z0-9._/-]`` ever appears in one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from uuid import UUID

from app.domain.jobs import AssetKind

_STEM = {AssetKind.MODEL: "model", AssetKind.REFINED_MODEL: "refined_model"}


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
    """``concepts/<task_id>/0.png``, ``models/<task_id>/model.glb``, ``model_1.glb``, ``refined_model.glb``, …"""
    if kind is AssetKind.CONCEPT:
        folder, name = "concepts", str(number)
    else:
        folder, name = "models", _STEM[kind] if number == 0 else f"{_STEM[kind]}_{number}"
    prefix = "" if owner is None else owner.prefix
    path = f"{folder}/{task_id}/{name}.{extension}"
    return f"{prefix}/{task_id}/{path}" if prefix else path


def input_key(user_id: UUID, asset_id: UUID, extension: str) -> str:
    """Where a file goes that a client uploads through us."""
    return f"inputs/{user_id}/{asset_id}.{extension}"


def thumbnail_key(key: str) -> str:
    return _derived(key, "thumb")


def preview_key(key: str) -> str:
    return _derived(key, "preview")


def trash_key(key: str) -> str:
    return f".trash/{key}"


def _derived(key: str, what: str) -> str:
    path = PurePosixPath(key)
    return str(path.with_name(f"{path.stem}.{what}.webp"))
