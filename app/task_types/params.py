"""Strict parsing of what clients send: an unknown field is an error, never dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_validator

_MOST_FIELDS = 64  # more than any task type has: each that is unknown costs a fault


class Strict(BaseModel):
    """A body whose every field is known."""

    # "model_" is a namespace of pydantic's own by default, and the contract has a model_version
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), str_max_length=32_000)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, data: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if isinstance(data, Mapping) and len(cast("Mapping[str, Any]", data)) > _MOST_FIELDS:
            raise ValueError(f"A body may have {_MOST_FIELDS} fields.")
        return data


class Params(Strict):
    """Parameters of one task type: fields of its own, and the groups that it is composed of."""
