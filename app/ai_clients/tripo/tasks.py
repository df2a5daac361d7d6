"""Tripo's tasks and listings as values of ours. Pure, and lenient about the forms that its documents disagree on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from app.ai_clients.base import ProviderTask, ProviderTaskState
from app.ai_clients.tripo.errors import TASK_STATES, task_failure
from app.ai_clients.tripo.prices import credits_to_micros

_MODEL_KEYS = ("model_url", "pbr_model_url", "model", "pbr_model", "base_model")
_PICTURE_KEYS = ("generated_image_url",)
_PREVIEW_KEYS = ("rendered_image_url",)
_SEEDS = ("model_seed", "texture_seed")
_MAX_URL = 8192
_MAX_CREDITS = 10**9


def parse_task(task_id: str, value: Mapping[str, Any]) -> ProviderTask:
    """A task as it is listed. A word that we do not know counts as running, never as success."""
    word = str(value.get("status"))
    state = TASK_STATES.get(word, ProviderTaskState.RUNNING)
    over = state is not ProviderTaskState.RUNNING
    output = _mapping(value.get("output")) if state is ProviderTaskState.SUCCEEDED else {}
    echoed = _mapping(value.get("input"))
    credit = decimal_of(value.get("credits_consumed")) if over else None
    error, detail = task_failure(word, value.get("error_code")) if state is ProviderTaskState.FAILED else (None, None)
    made = _url(output, _MODEL_KEYS) or (None if _makes_model(echoed) else _url(output, _PICTURE_KEYS))
    return ProviderTask(
        id=task_id,
        state=state,
        progress=_progress(value.get("progress")),
        output_urls=() if made is None else (made,),
        preview_url=_url(output, _PREVIEW_KEYS),
        cost_micros=None if credit is None else credits_to_micros(credit),
        credits=credit,
        error=error,
        error_detail=detail,
        created_at=time_of(value),
        echoed_input=echoed,
    )


def parse_listing(data: object) -> dict[str, Mapping[str, Any]]:
    """Tasks of a ``/tasks/list`` reply by id; ``tasks`` is a mapping in the documents and a list in an SDK."""
    tasks: object = _mapping(data).get("tasks")
    if isinstance(tasks, Mapping):
        return {str(key): _mapping(task) for key, task in cast("Mapping[object, object]", tasks).items()}
    if isinstance(tasks, list):
        listed = [_mapping(task) for task in cast("list[object]", tasks)]
        return {str(task.get("task_id")): task for task in listed}
    return {}


def missing(task_id: str) -> ProviderTask:
    return ProviderTask(task_id, ProviderTaskState.MISSING)


@dataclass(frozen=True, slots=True)
class UsageRow:
    task_id: str
    created_at: datetime | None
    kind: str
    credits: Decimal | None
    over: bool


def parse_usage(data: object) -> list[UsageRow]:
    """Rows of an ``/account/usage`` reply, which come as ``data.items`` or as ``data``."""
    rows: object = data if isinstance(data, list) else _mapping(data).get("items")
    if not isinstance(rows, list):
        return []
    listed = [_mapping(row) for row in cast("list[object]", rows)]
    return [
        UsageRow(
            str(row["task_id"]),
            time_of(row),
            kind=str(row.get("type", "")),
            credits=decimal_of(row.get("credits_consumed")),
            over=TASK_STATES.get(str(row.get("status")), ProviderTaskState.RUNNING) is not ProviderTaskState.RUNNING,
        )
        for row in listed
        if row.get("task_id")
    ]


def matches(fingerprint: Mapping[str, Any], echoed: Mapping[str, Any]) -> bool:
    """Whether a task's echoed input is the call's own: by its random seed, else by its fresh upload tokens."""
    for name in _SEEDS:
        if name in fingerprint and echoed.get(name) is not None:
            return str(echoed[name]) == str(fingerprint[name])
    tokens = {str(token) for token in fingerprint.get("tokens", ())}
    return bool(tokens) and tokens <= set(_strings(echoed))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in cast("Mapping[object, object]", value).values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _strings(item)


def time_of(value: Mapping[str, Any]) -> datetime | None:
    """``created_at`` as ISO 8601 or epoch seconds, ``create_time`` as epoch seconds; None when unreadable."""
    raw: object = value.get("created_at", value.get("create_time"))
    try:
        if isinstance(raw, str):
            moment = datetime.fromisoformat(raw)
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        if isinstance(raw, int | Decimal) and not isinstance(raw, bool):
            return datetime.fromtimestamp(float(raw), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def decimal_of(value: object) -> Decimal | None:
    """An amount of credits: never a binary float, never negative or absurd."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= _MAX_CREDITS else None


def _progress(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return int(max(0, min(100, value)))


def _makes_model(echoed: Mapping[str, Any]) -> bool:
    """Whether a task's picture is only on its way to a model; the ``type`` of replies is not reliable."""
    return any(name in echoed for name in _SEEDS)


def _url(output: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value: object = output.get(key)
        if isinstance(value, str) and 0 < len(value) <= _MAX_URL:
            return value
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
