"""Signed links with a real expiry, and how tasks are told."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from app.sandbox.providers.knobs import Knobs
from app.sandbox.providers.tripo_tasks import Task

_STEPS = 5
_SIGNATURE_LETTERS = 40


class Links:
    """Links outlive restarts: the secret lies in a file of the sandbox. ``open`` before use."""

    def __init__(self, secret: Path, base: str) -> None:
        self._path = secret
        self._base = base
        self._secret = b""

    def open(self) -> None:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_bytes(secrets.token_bytes(32))
            part.replace(self._path)
        self._secret = self._path.read_bytes()

    def make(self, place: str, name: str, seconds: float) -> str:
        """A URL of ``name`` below ``place`` that works for ``seconds``."""
        expires = time.time() + seconds
        stamp = f"{expires:.3f}"
        return f"{self._base}/{place}/{name}?exp={stamp}&sig={self._sign(place, name, stamp)}"

    def is_good(self, place: str, name: str, query: str) -> bool:
        fields = parse_qs(query)
        stamp, signature = fields.get("exp", [""])[0], fields.get("sig", [""])[0]
        if not hmac.compare_digest(self._sign(place, name, stamp).encode(), signature.encode()):
            return False
        return time.time() < float(stamp)

    def _sign(self, place: str, name: str, stamp: str) -> str:
        text = f"{place}/{name}:{stamp}".encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:_SIGNATURE_LETTERS]


def told_time(moment: float, knobs: Knobs) -> str | int:
    moment += knobs.clock_skew_seconds
    if knobs.time_shape == "epoch":
        return int(moment)
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told_task(task: Task, knobs: Knobs, links: Links) -> dict[str, Any]:
    """The task as a poll shows it. Every URL is made anew."""
    status, progress = _state(task, knobs)
    value: dict[str, Any] = {
        "task_id": task.id,
        "type": task.kind.replace("-", "_"),
        "status": status,
        "progress": progress,
        "input": task.body,
        "created_at": told_time(task.created_at, knobs),
    }
    if task.finished_at is None:
        return value
    value["completed_at"] = told_time(task.finished_at, knobs)
    value["credits_consumed"] = float(task.consumed)
    if task.status == "success" and task.output:
        value["output"] = told_output(task, knobs, links)
    if task.error_code is not None:
        value |= {"error_code": task.error_code, "error_message": task.error_message}
    return value


def told_output(task: Task, knobs: Knobs, links: Links) -> dict[str, str]:
    return {
        knobs.model_word if key == "model_url" else key: links.make("dl", name, knobs.link_seconds)
        for key, name in task.output.items()
    }


def _state(task: Task, knobs: Knobs) -> tuple[str, int | None]:
    if task.finished_at is not None:
        return task.status, 100
    now = time.time()
    if task.fault == "stays_queued" or task.started_at is None:
        return task.status, 0
    share = min(1.0, (now - task.started_at) / max(task.work_seconds, 0.001))
    match task.fault:
        case "unknown":
            return "unknown", int(99 * share)
        case "new_word":
            return "finalizing", int(99 * share)
        case "stays_at_99":
            return "running", 99
        case "null_progress":
            return "running", None
        case "progress_back":
            # up, a good way back, and up again
            return "running", int(90 * share if share < 0.5 else 120 * (share - 0.5) if share < 0.9 else 95)
        case _:
            return "running", _curve(share, knobs)


def _curve(share: float, knobs: Knobs) -> int:
    match knobs.progress_curve:
        case "linear":
            return int(99 * share)
        case "eased":
            return int(99 * (1 - (1 - share) ** 2))
        case "steps":
            return int(share * _STEPS) * 100 // _STEPS if share < 1 else 99
