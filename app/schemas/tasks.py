"""What clients read about tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model

from app.domain.asset_kinds import AssetKinds
from app.task_types.examples import CONCEPT_URL, JOB_ID, REQUEST_ID, TASK_ID

AssetWord = Literal["pending", "processing", "complete", "failed", "canceled"]
TaskWord = Literal["queued", "running", "completed", "failed", "canceled"]
Waiting = Literal["retry", "user_limit", "step", "dependency", "breaker", "slot", "worker"]


class StatusError(BaseModel):
    code: str = Field(description="One of the catalogue; see /problems/{code}.")
    message: str


class Result(RootModel[dict[str, list[str] | str | None]]):
    """Links of what is complete, by the fields of the registered kinds of assets: ``result_schema`` tells them."""


def result_schema(kinds: AssetKinds) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: (list[str], Field(description="In the order of their numbers.")) if many else (str | None, ...)
        for name, many in kinds.result_fields.items()
    }
    return create_model("Result", **fields).model_json_schema()


class JobStatus(BaseModel):
    job_id: UUID
    step: int
    chunk: int = Field(description="Its place among the jobs of its step, from 0.")
    type: str
    status: AssetWord
    progress: int = Field(ge=0, le=100)
    items_done: int = Field(description="How many of its items have ended, also those that were skipped or failed.")
    items_total: int | None = Field(description="How many items it works through; null where that is not counted.")
    waiting_for: Waiting | None
    error: StatusError | None
    provider_task_id: str | None = Field(description="What refine-model takes as tripo_draft_task_id.")
    cost_micros: int = Field(description="What the job has cost, in millionths of a US dollar.")


class TaskStatus(BaseModel):
    """The newest request of a task, or one job."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "task_id": TASK_ID,
                "request_id": REQUEST_ID,
                "job_id": JOB_ID,
                "operation": "text-to-image",
                "retry_of": None,
                "status": "complete",
                "progress": 100,
                "asset_url": CONCEPT_URL,
                "result_url": CONCEPT_URL,
                "result": {"image_urls": [CONCEPT_URL], "model_url": None},
                "error": None,
                "waiting_for": None,
                "jobs": [],
            }
        }
    )

    task_id: str
    request_id: UUID
    job_id: UUID
    operation: str
    retry_of: UUID | None = Field(description="The failed request that this one repeats.")
    status: AssetWord
    progress: int = Field(ge=0, le=100)
    asset_url: str | None = Field(description="The first output, when it is there.")
    result_url: str | None = Field(description="The same as asset_url.")
    result: Result
    error: StatusError | None
    waiting_for: Waiting | None = Field(description="Why nothing runs at the moment.")
    jobs: list[JobStatus]


class Task(BaseModel):
    id: str
    type: str
    label: str | None
    status: TaskWord
    status_url: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class TaskPage(BaseModel):
    tasks: list[Task] = Field(description="Newest first.")
    next_cursor: str | None = Field(description="Send it as cursor for the next page; null on the last one.")


class RequestJob(BaseModel):
    id: UUID
    step: int
    chunk: int
    type: str
    status: TaskWord
    progress: int
    items_done: int
    items_total: int | None
    waiting_for: Waiting | None
    error_code: str | None
    cost_micros: int


class TaskRequest(BaseModel):
    id: UUID
    operation: str
    status: TaskWord
    job_id: UUID
    error_code: str | None
    retry_of: UUID | None = Field(description="The failed request that this one repeats.")
    depends_on: list[str] = Field(description="Tasks that had to be completed first.")
    created_at: datetime
    finished_at: datetime | None
    jobs: list[RequestJob]


class TaskDetail(Task):
    requests: list[TaskRequest] = Field(description="Everything that was asked for under this id, oldest first.")
