"""What clients read about task types, as ready-made documents: it changes with the code and the settings alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.domain.params import ObjectRef
from app.errors import AppError, ErrorCode
from app.task_types.params import Params
from app.task_types.planner import Planner
from app.task_types.registry import AnyTaskType, Input, TaskTypes
from app.task_types.steps import Inputs


@dataclass(frozen=True, slots=True)
class Document:
    body: bytes
    etag: str


class Catalogue:
    """Of the types of this process, with what its providers take."""

    def __init__(self, task_types: TaskTypes, planner: Planner) -> None:
        described = {task_type.name: describe(task_type, planner) for task_type in task_types}
        self._task_types = task_types
        self._each = {name: _document(found) for name, found in described.items()}
        self.whole = _document({"task_types": list(described.values())})

    def one(self, name: str) -> Document:
        """By name or alias. Raises AppError(NOT_FOUND)."""
        found = self._task_types.find(name)
        if found is None:
            raise AppError(ErrorCode.NOT_FOUND, f"No such task type. Known are {', '.join(self._task_types.names)}.")
        return self._each[found.name]


def describe(task_type: AnyTaskType, planner: Planner) -> dict[str, Any]:
    """Everything a client needs to offer the type and to check its parameters."""
    return {
        "name": task_type.name,
        "label": task_type.label,
        "description": task_type.description,
        "category": task_type.category,
        "aliases": list(task_type.aliases),
        "run_type": task_type.run_type,
        "inputs": [_input(item) for item in task_type.inputs],
        "params": task_type.params.model_json_schema() | {"example": dict(task_type.example)},
        "estimates": _estimates(task_type, planner),
    }


def _input(item: Input) -> dict[str, Any]:
    return {"name": item.option, "kind": item.kind, "fields": list(item.fields), "most": item.most}


def _estimates(task_type: AnyTaskType, planner: Planner) -> list[dict[str, Any]]:
    """What the least request costs at each provider that a client may name, USD micros; empty where none offers it."""
    least = task_type.least_example()
    inputs = Inputs({item.key: tuple(_ANY for _ in item.values(least)) for item in task_type.inputs})
    default = _estimate(task_type, least, inputs, planner)
    if default is None:
        return []
    found = [default | {"default": True}]
    if "provider" in task_type.params.model_fields:
        others = [name for name in planner.providers if name != default["provider"]]
        for name in others:
            named = least.model_copy(update={"provider": name})
            if (estimate := _estimate(task_type, named, inputs, planner)) is not None:
                found.append(estimate | {"default": False})
    return found


_ANY = ObjectRef("bucket", "key")  # what a picture costs does not depend on which it is


def _estimate(task_type: AnyTaskType, params: Params, inputs: Inputs, planner: Planner) -> dict[str, Any] | None:
    """None where the named provider does not offer it."""
    try:
        steps = planner.steps(task_type, params, inputs)
    except AppError as error:
        if error.error is not ErrorCode.PROVIDER_NOT_AVAILABLE:
            raise
        return None
    providers = [step.provider for step in steps if step.provider is not None]
    # the last step makes what was asked for
    return {"provider": providers[-1] if providers else None, "micros": task_type.price(params, steps)}


def _document(content: Mapping[str, Any]) -> Document:
    body = orjson.dumps(content)
    return Document(body, hashlib.sha256(body).hexdigest()[:32])
