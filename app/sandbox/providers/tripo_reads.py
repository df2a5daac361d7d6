"""Polls, listings and the account. Nothing here costs anything."""

from __future__ import annotations

import time
from typing import Any, cast
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.providers.links import Links, told_task, told_time
from app.sandbox.providers.tripo_calls import Asked, TripoCalls
from app.sandbox.providers.tripo_refusals import bad_parameter, no_task
from app.sandbox.providers.tripo_tasks import Tasks

_LIST_LIMIT = 100
_USAGE_LIMIT = 200
_USAGE_DEFAULT = 50


class TripoReads:
    def __init__(self, calls: TripoCalls, tasks: Tasks, links: Links) -> None:
        self._calls = calls
        self._tasks = tasks
        self._links = links

    def routes(self) -> list[Route]:
        answering = self._calls.answering
        return [
            Route("/tasks/list", answering(self.listing), methods=["POST"]),
            Route("/tasks/{id}", answering(self.task), methods=["GET"]),
            Route("/account/balance", answering(self.balance), methods=["GET"]),
            Route("/account/usage", answering(self.usage), methods=["GET"]),
        ]

    async def task(self, asked: Asked) -> Response:
        await self._calls.pause(asked.knobs.poll_seconds)
        fault = self._calls.take(asked, "tripo.poll")
        answer = await self._calls.struck(asked, fault)
        if answer is not None:
            return answer
        task = self._tasks.one(asked.request.path_params["id"], asked.account.id)
        if task is None or (fault is not None and fault.kind == "missed"):
            raise no_task()
        value = told_task(task, asked.knobs, self._links)
        if fault is not None and fault.kind == "null_progress":
            value["progress"] = None
        return asked.success(value)

    async def listing(self, asked: Asked) -> Response:
        body, _ = await asked.json()
        await self._calls.pause(asked.knobs.poll_seconds)
        given: object = body.get("task_ids")
        ids = cast("list[Any]", given) if isinstance(given, list) else []
        if not 1 <= len(ids) <= _LIST_LIMIT or not all(isinstance(one, str) for one in ids):
            raise bad_parameter(f"task_ids takes 1 to {_LIST_LIMIT} ids")
        fault = self._calls.take(asked, "tripo.poll")
        answer = await self._calls.struck(asked, fault)
        if answer is not None:
            return answer
        kind = "" if fault is None else fault.kind
        found = {} if kind == "missed" else self._tasks.several(ids, asked.account.id)
        told = {task_id: told_task(task, asked.knobs, self._links) for task_id, task in found.items()}
        if kind == "null_progress":
            told = {task_id: {**value, "progress": None} for task_id, value in told.items()}
        tasks: Any = told if asked.knobs.list_shape == "dict" else list(told.values())
        return asked.success({"tasks": tasks, "missed": [one for one in ids if one not in told]})

    async def balance(self, asked: Asked) -> Response:
        answer = await self._calls.struck(asked, self._calls.take(asked, "tripo.account"))
        if answer is not None:
            return answer
        money = self._tasks.money(asked.account.id)
        return asked.success({"balance": float(money.available), "frozen": float(money.frozen)})

    async def usage(self, asked: Asked) -> Response:
        fault = self._calls.take(asked, "tripo.account")
        answer = await self._calls.struck(asked, fault)
        if answer is not None:
            return answer
        knobs = asked.knobs
        limit = _number(asked.request, "limit", _USAGE_DEFAULT, 1, _USAGE_LIMIT)
        offset = _number(asked.request, "offset", 0, 0, 10**9)
        seen = self._tasks.newest(
            asked.account.id,
            limit=limit,
            offset=offset,
            before=time.time() - knobs.usage_delay_seconds,
            running=knobs.usage_lists_running,
        )
        rows: list[dict[str, Any]] = [
            {
                "task_id": task.id,
                "type": task.kind.replace("-", "_"),
                "status": task.status,
                "created_at": told_time(task.created_at, knobs),
                "credits_consumed": float(task.consumed),
            }
            for task in seen
        ]
        match "" if fault is None else fault.kind:
            case "empty_usage":
                rows = []
            case "unordered_usage":
                rows = rows[1::2] + rows[::2]
            case "foreign_usage":
                # rows of somebody who uses the same account beside us
                rows = [
                    row for own in rows for row in ({**own, "task_id": str(uuid4()), "type": "image_to_model"}, own)
                ]
            case _:
                pass
        return asked.success({"items": rows} if knobs.usage_shape == "items" else rows)


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise bad_parameter(f"{name} must lie between {low} and {high}")
    return int(text)
