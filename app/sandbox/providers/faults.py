"""Faults, armed while the sandbox runs; nothing is on by default.

A fault names a place (``where``) and what goes wrong there (``kind``). It strikes the next ``count`` calls, or each
with a ``probability``, of one endpoint or one API key where it says so. Kinds ending in ``_before`` strike before a
create is accepted, ``_after`` when it was accepted and charged already.
"""

from __future__ import annotations

import random
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.sandbox.providers.accounts import Account, account_of

Where = Literal[
    "openai",
    "tripo",
    "tripo.submit",
    "tripo.task",
    "tripo.poll",
    "tripo.upload",
    "tripo.download",
    "tripo.account",
    "webhook",
]

BEFORE = frozenset({"reset_before", "stall_before", "late_before", "status_before", "html_before"})
AFTER = frozenset(
    {
        *("reset_after", "stall_after", "late_after", "status_after", "html_after"),
        *("truncated_after", "empty_after", "no_id_after", "cut_after"),
    }
)
TRANSPORT = frozenset({"reset", "stall", "late", "status", "html", "truncated", "empty"})
TRIPO_REFUSALS = frozenset({"credits", "busy", "rate", "moderation", "bad_key", "audit", "code_200", "busy_503"})

KINDS: dict[Where, frozenset[str]] = {
    "openai": BEFORE
    | AFTER
    | {
        *("moderation", "moderation_output", "quota", "rate_limit", "slow_down", "overloaded", "server_error"),
        *("bad_key", "not_verified", "model_gone", "fewer_images", "broken_image", "broken_base64", "jpeg_for_png"),
        *("no_usage", "stream_cut", "stream_error", "final_first"),
    },
    "tripo": TRANSPORT | {"bad_key", "rate", "code_200"},
    "tripo.submit": BEFORE | AFTER | TRIPO_REFUSALS,
    "tripo.task": frozenset(
        {
            *("stays_queued", "stays_at_99", "progress_back", "null_progress", "unknown", "new_word"),
            *("failed", "failed_2018", "failed_1001", "banned", "expired", "cancelled"),
            *("no_output", "wrong_format", "heavy"),
        }
    ),
    "tripo.poll": TRANSPORT | {"missed", "not_found", "null_progress", "code_200", "bad_key", "rate"},
    "tripo.upload": TRANSPORT | {"too_large", "bad_parameter", "token_lost", "rate"},
    "tripo.download": TRANSPORT
    | {"expired", "missing", "slow", "cut", "wrong_length", "wrong_type", "redirect", "huge"},
    "tripo.account": TRANSPORT | {"empty_usage", "unordered_usage", "foreign_usage", "code_200", "bad_key", "rate"},
    "webhook": frozenset(
        {
            *("duplicate", "out_of_order", "late", "lost", "before_reply", "bad_signature", "old_signature"),
            *("two_signatures", "unknown_type", "error_fields"),
        }
    ),
}


class Fault(BaseModel):
    """What to arm. ``GET /admin/faults`` lists the kinds of every place."""

    model_config = ConfigDict(extra="forbid")

    where: Where
    kind: str
    count: int | None = Field(1, ge=1, description="how many calls; all when null")
    probability: float = Field(1.0, ge=0, le=1)
    endpoint: str | None = Field(None, description="only calls whose path contains this")
    words: str | None = Field(None, description="only creates whose prompt contains this")
    key: str | None = Field(None, exclude=True, description="only calls with this API key")
    account: str | None = Field(None, description="stands for the key")
    status: int = Field(500, ge=200, le=599, description="of the kinds status…")
    body: dict[str, Any] | None = Field(None, description="JSON of the kinds status…; plain text when null")
    headers: dict[str, str] = {}
    seconds: float = Field(600.0, ge=0, description="of the kinds stall…, late…, stays…, unknown and slow calls")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.kind not in KINDS[self.where]:
            raise ValueError(f"{self.where} knows {', '.join(sorted(KINDS[self.where]))}")
        if self.key is not None:
            self.account, self.key = account_of(self.key).id, None
        return self


class Script:
    """What is armed now, and what has struck. Lives as long as the process."""

    def __init__(self, seed: int) -> None:
        self.armed: list[Fault] = []
        self.hits: dict[str, int] = {}
        self._chance = random.Random(seed)

    def take(
        self,
        where: Where,
        *,
        path: str = "",
        prompt: str = "",
        account: Account | None = None,
        among: frozenset[str] | None = None,
    ) -> Fault | None:
        """The fault that strikes this call; ``among`` limits the kinds that are asked for."""
        for fault in self.armed:
            if fault.where != where or (among is not None and fault.kind not in among):
                continue
            if fault.words is not None and fault.words not in prompt:
                continue
            if fault.endpoint is not None and fault.endpoint not in path:
                continue
            if fault.account is not None and (account is None or fault.account != account.id):
                continue
            if self._chance.random() >= fault.probability:
                continue
            struck = fault.model_copy()
            if fault.count is not None:
                fault.count -= 1
                if fault.count == 0:
                    self.armed.remove(fault)
            name = f"{where}:{fault.kind}"
            self.hits[name] = self.hits.get(name, 0) + 1
            return struck
        return None

    def clear(self) -> None:
        self.armed.clear()
        self.hits.clear()


PLACES: tuple[Where, ...] = get_args(Where)

__all__ = ["AFTER", "BEFORE", "KINDS", "PLACES", "TRANSPORT", "TRIPO_REFUSALS", "Fault", "Script", "Where"]
