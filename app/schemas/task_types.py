"""What clients read about task types."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from app.task_types.registry import Category, InputKind, RunType


class TaskInput(BaseModel):
    name: str
    kind: InputKind = Field(description="draft: the provider's id of a model that was made for the caller.")
    fields: list[str] = Field(description="Parameters that it may be sent as.")
    most: int = Field(description="How many are taken.")


class TaskEstimate(BaseModel):
    provider: str | None = Field(description="As the parameter provider names it; null where no provider is paid.")
    micros: int = Field(ge=0, description="What the least request costs, in millionths of a US dollar.")
    default: bool = Field(description="The provider of requests that name none.")


class TaskTypeDescription(BaseModel):
    """What a client needs to offer a type and to check its parameters before they are sent."""

    name: str
    label: str
    description: str
    category: Category
    aliases: list[str] = Field(description="Other names that task_type may have.")
    run_type: RunType = Field(description="api: run by the gateway's workers; gpu: by workers that claim over HTTP.")
    inputs: list[TaskInput]
    params: dict[str, Any] = Field(description="JSON Schema of params, with an example.")
    estimates: list[TaskEstimate]


class TaskTypeList(BaseModel):
    task_types: list[TaskTypeDescription]
