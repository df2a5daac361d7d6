"""Replies of OpenAI Images, whole and as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.sandbox.providers.faults import Fault
from app.sandbox.providers.openai_faults import moderation, server_error
from app.sandbox.providers.openai_prices import Usage
from app.sandbox.providers.openai_strict import ImageOrder


@dataclass(frozen=True, slots=True)
class Told:
    """What a reply says beside its pictures; ``auto`` is told as what it became."""

    background: str
    output_format: str
    quality: str
    size: str

    @classmethod
    def of(cls, order: ImageOrder, size: tuple[int, int], quality: str) -> Told:
        background = "opaque" if order.background == "auto" else order.background
        return cls(background, order.output_format, quality, f"{size[0]}x{size[1]}")

    def wire(self) -> dict[str, Any]:
        return {
            "background": self.background,
            "output_format": self.output_format,
            "quality": self.quality,
            "size": self.size,
        }


def whole_reply(told: Told, pictures: list[str], usage: Usage | None, created: int) -> bytes:
    reply: dict[str, Any] = {
        "created": created,
        **told.wire(),
        "data": [{"b64_json": picture} for picture in pictures],
    }
    if usage is not None:
        reply["usage"] = usage.wire(streamed=False)
    return json.dumps(reply, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Stream:
    """The events of an order. ``pictures`` are awaited in turn; partials are spread over ``work_seconds``."""

    order: ImageOrder
    told: Told
    usage: Usage
    pictures: Sequence[Awaitable[bytes]]
    work_seconds: float
    partial: Callable[[bytes, float], Awaitable[bytes]]
    cut: Callable[[], None]
    fault: Fault | None

    async def events(self) -> AsyncGenerator[bytes]:
        """Blocks of the event stream; ends early when a fault says so."""
        started = time.monotonic()
        kind = "" if self.fault is None else self.fault.kind
        for picture in self.pictures:
            made = await picture
            if kind == "final_first":
                yield self._final(made)
            for index in range(self.order.partial_images):
                share = (index + 1) / (self.order.partial_images + 1)
                await asyncio.sleep(max(0.0, started + share * self.work_seconds - time.monotonic()))
                early = await self.partial(made, share)
                yield self._event("partial_image", {"partial_image_index": index, **self._picture(early)})
                if kind == "stream_cut":
                    await asyncio.sleep(0.05)  # a reset overtakes bytes that wait in the socket
                    self.cut()
                    return
            if kind in ("stream_error", "moderation_output"):
                error = (server_error() if kind == "stream_error" else moderation("output")).error
                yield b"event: error\ndata: " + _json({"type": "error", "error": error}) + b"\n\n"
                return
            if kind == "stream_cut":
                self.cut()
                return
            await asyncio.sleep(max(0.0, started + self.work_seconds - time.monotonic()))
            if kind != "final_first":
                yield self._final(made)

    def _final(self, picture: bytes) -> bytes:
        values = self._picture(picture)
        if self.fault is None or self.fault.kind != "no_usage":
            values["usage"] = self.usage.wire(streamed=True)
        return self._event("completed", values)

    def _picture(self, picture: bytes) -> dict[str, Any]:
        encoded = base64.b64encode(picture).decode()
        return {"b64_json": encoded, "created_at": int(time.time()), **self.told.wire()}

    def _event(self, what: str, values: dict[str, Any]) -> bytes:
        name = f"image_{self.order.kind}.{what}"
        return f"event: {name}\ndata: ".encode() + _json({"type": name, **values}) + b"\n\n"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
