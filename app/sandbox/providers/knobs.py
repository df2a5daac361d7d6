"""Speeds, sizes, limits and dialects of the stand-ins, settable at start and while they run, for all keys or one."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

PoolName = Literal["h", "p", "image", "texture", "import"]

DEFAULT_POOLS: dict[PoolName, int] = {"h": 10, "p": 5, "image": 1, "texture": 5, "import": 10}
"""Tripo's documented concurrency per account and group (H and P series, pictures, texture and convert, mesh)."""


class Knobs(BaseModel):
    """Times in seconds. The rates are far above the vendor's (Tripo: 200 creates and 10 uploads a minute)."""

    model_config = ConfigDict(extra="forbid")

    work_seconds: float = Field(2.0, ge=0, description="time of one piece of work; more when the real work is slower")
    drawing: Literal["real", "stock"] = Field("real", description="stock: one picture and model for all, made once")
    model_bytes: int | None = Field(None, ge=1, description="models with less are filled up to it, in steps of four")
    work_spread: Literal["fixed", "uniform", "lognormal"] = "fixed"
    work_sigma: float = Field(0.5, ge=0, le=2, description="of the lognormal spread, work_seconds being its median")
    submit_seconds: float = Field(0.0, ge=0, description="before a create is looked at")
    poll_seconds: float = Field(0.0, ge=0, description="before a poll is answered")
    download_bytes_per_second: int | None = Field(None, ge=1)
    link_seconds: float = Field(300.0, gt=0, description="lifetime of a download link")
    token_seconds: float = Field(86_400.0, gt=0, description="lifetime of an upload")
    usage_delay_seconds: float = Field(0.0, ge=0, description="until a task shows in the usage listing")
    usage_lists_running: bool = True
    creations_per_minute: int = Field(2000, ge=1)
    uploads_per_minute: int = Field(600, ge=1)
    openai_per_minute: int = Field(2000, ge=1)
    pools: dict[PoolName, int] = Field(default_factory=lambda: dict(DEFAULT_POOLS))
    credit_factor: Decimal = Field(Decimal(1), ge=0, le=10, description="a discount below 1 makes fractions of credits")
    low_balance: Decimal = Field(Decimal(0), ge=0, description="credits at which the webhook balance.low is sent")
    progress_curve: Literal["linear", "eased", "steps"] = "linear"
    list_shape: Literal["dict", "list"] = "dict"
    usage_shape: Literal["items", "list"] = "items"
    presign_word: Literal["presigned_url", "upload_url"] = "presigned_url"
    model_word: Literal["model_url", "pbr_model_url", "model"] = "model_url"
    time_shape: Literal["iso", "epoch"] = "iso"
    envelope_status: bool = True
    clock_skew_seconds: float = Field(0.0, ge=-3600, le=3600, description="of the Date header and of all times told")

    @field_validator("pools")
    @classmethod
    def _every_pool(cls, value: dict[PoolName, int]) -> dict[PoolName, int]:
        if any(slots < 0 for slots in value.values()):
            raise ValueError("a pool has no negative number of slots")
        return DEFAULT_POOLS | value

    def draw_work_seconds(self, chance: random.Random) -> float:
        match self.work_spread:
            case "fixed":
                return self.work_seconds
            case "uniform":
                return self.work_seconds * chance.uniform(0.5, 1.5)
            case "lognormal":
                return self.work_seconds * math.exp(chance.gauss(0.0, self.work_sigma))


class KnobBoard:
    """The knobs of everybody, and what single accounts have turned differently."""

    def __init__(self, start: Knobs) -> None:
        self._everybody = start
        self._changes: dict[str, dict[str, Any]] = {}

    def of(self, account: str | None) -> Knobs:
        changes = self._changes.get(account or "")
        return self._everybody if not changes else _turned(self._everybody, changes)

    def turn(self, changes: dict[str, Any], account: str | None) -> Knobs:
        """Apply changes for everybody, or for one account on top. Raises ValidationError and changes nothing."""
        turned = _turned(self.of(account), changes)
        if account is None:
            self._everybody = turned
        else:
            self._changes[account] = self._changes.get(account, {}) | changes
        return turned


def _turned(knobs: Knobs, changes: dict[str, Any]) -> Knobs:
    return Knobs.model_validate(knobs.model_dump() | changes)
