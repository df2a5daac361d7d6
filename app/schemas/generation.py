"""Bodies of ``/generate/*`` and ``POST /tasks``, made from the task types, and their answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast
from uuid import UUID

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, create_model

from app.task_types import fields
from app.task_types.examples import TASK_ID
from app.task_types.params import Strict
from app.task_types.registry import AnyTaskType, TaskTypes

IDEMPOTENCY_KEY_PATTERN = r'^([!-~]+|"([ !#-\[\]-~]|\\["\\])+")$'


_REF = "#/components/schemas/{model}"


class OfTask(BaseModel):
    """What every ``/generate/*`` body has besides the parameters of its type."""

    task_id: fields.TaskId


def body_of(task_type: AnyTaskType) -> type[OfTask]:
    """The parameters of the type, and the task."""
    made = create_model(
        task_type.params.__name__,
        __base__=(task_type.params, OfTask),
        __doc__=task_type.params.__doc__,
        __cls_kwargs__={"json_schema_extra": {"example": {"task_id": TASK_ID, **task_type.example}}},
    )
    return cast("type[OfTask]", made)


def _listed(value: object) -> object:
    """One id may be sent bare, and null for none."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


_TaskIds = Annotated[list[fields.TaskId], Field(max_length=100)]


class NewTask(Strict):
    """Work of a type by its name. Each name of a field may be sent once."""

    task_type: str = Field(min_length=1, max_length=64, validation_alias=AliasChoices("task_type", "type", "family"))
    params: dict[str, Any] = Field(validation_alias=AliasChoices("params", "input"))
    task_id: fields.TaskId | None = None
    idempotency_key: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        pattern=IDEMPOTENCY_KEY_PATTERN,
        description="In place of the header Idempotency-Key.",
    )
    depends_on: Annotated[
        _TaskIds, BeforeValidator(_listed, json_schema_input_type=_TaskIds | fields.TaskId | None)
    ] = Field(
        [],
        validation_alias=AliasChoices("depends_on", "dependant_on"),
        description="Tasks of yours that must be completed first, each as its newest request stands for it now; what is"
        " asked of them later changes nothing. Until then the jobs wait (`waiting_for: dependency`). When one of them"
        " fails or is canceled, this request fails with `dependency_failed`.",
    )
    expires_in: Annotated[int, Field(ge=1, le=30 * 24 * 3600), fields.Whole] | None = Field(
        None,
        description="Seconds in which the request must have been started, whatever it waits for; else it fails with"
        " `expired`. Without it, it waits for as long as it takes.",
    )


def creation_schemas(task_types: TaskTypes) -> dict[str, Any]:
    """The schema of ``NewTask``, type by type, and those it refers to: components of the OpenAPI document."""
    components: dict[str, Any] = {}
    fields_of_all = NewTask.model_json_schema(by_alias=False)["properties"]
    variants: list[dict[str, Any]] = []
    for task_type in task_types:
        params = task_type.params.model_json_schema(ref_template=_REF)
        components |= params.pop("$defs", {})
        name = f"{task_type.params.__name__}Params"
        components[name] = params | {"title": name, "example": dict(task_type.example)}
        properties = fields_of_all | {
            "task_type": {"const": task_type.name, "title": "Task Type", "type": "string"},
            "params": {"$ref": _REF.format(model=name)},
        }
        variants.append(
            {
                "type": "object",
                "title": task_type.label,
                "description": task_type.description,
                "properties": properties,
                "required": ["task_type", "params"],
                "additionalProperties": False,
            }
        )
    first = next(iter(task_types))
    example = {"task_type": first.name, "params": dict(first.example), "task_id": TASK_ID}
    components["NewTask"] = {
        "title": "NewTask",
        "description": NewTask.__doc__,
        "oneOf": variants,
        "example": example,
    }
    return components


class TaskAccepted(BaseModel):
    """The request is queued. Repeats under the same idempotency key get the same answer."""

    task_id: str
    request_id: UUID
    job_id: UUID = Field(description="The job that makes what was asked for.")
    celery_task_id: UUID = Field(description="The same as job_id, for older clients.")
    status: Literal["pending", "processing", "complete", "failed", "canceled"]
    status_url: str
    deduplicated: bool = Field(description="True when an earlier request with this key was found.")
