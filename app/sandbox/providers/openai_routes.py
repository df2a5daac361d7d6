"""OpenAI Images: generations and edits, plain and streamed, and the list of models."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast
from uuid import uuid4

from PIL import Image
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.config import SandboxSettings
from app.sandbox.media.images import paint_prompt, render_sketch, transform_photo
from app.sandbox.providers.accounts import account_of
from app.sandbox.providers.faults import Fault, Script, strike
from app.sandbox.providers.openai_rules import (
    MODELS,
    ImageOrder,
    OpenAIRefusal,
    check_images,
    check_mask,
    read_order,
    refuse,
)
from app.sandbox.providers.store import Store

_TEXT_PRICE, _IMAGE_IN_PRICE, _OUTPUT_PRICE = 5, 8, 30  # USD micros per token
_DEFAULT_SIZE = (1024, 1024)

Handler = Callable[[Request], Awaitable[Response]]


class OpenAIRoutes:
    def __init__(self, settings: SandboxSettings, store: Store, script: Script) -> None:
        self._key = settings.openai_api_key.get_secret_value()
        self._seed = settings.seed
        self._store = store
        self._script = script

    def routes(self) -> list[Route]:
        return [
            Route("/images/generations", self._answering(self.generations), methods=["POST"]),
            Route("/images/edits", self._answering(self.edits), methods=["POST"]),
            Route("/models", self._answering(self.models), methods=["GET"]),
            Route("/models/{model}", self._answering(self.model), methods=["GET"]),
        ]

    def _answering(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            started = time.monotonic()
            try:
                self._check_key(request)
                response = await handler(request)
            except OpenAIRefusal as refusal:
                response = refusal.response()
            response.headers["x-request-id"] = f"req_{uuid4().hex}"
            response.headers["openai-processing-ms"] = str(int((time.monotonic() - started) * 1000))
            for kind in ("requests", "tokens"):
                response.headers[f"x-ratelimit-limit-{kind}"] = "10000"
                response.headers[f"x-ratelimit-remaining-{kind}"] = "9999"
                response.headers[f"x-ratelimit-reset-{kind}"] = "6ms"
            response.headers["x-makeit3d-sandbox"] = "sandbox"
            return response

        return answer

    def _check_key(self, request: Request) -> None:
        token = request.headers.get("authorization", "").partition(" ")[2]
        if token != self._key:
            message = f"Incorrect API key provided: {token[:3]}…{token[-4:]}."
            raise OpenAIRefusal(401, "invalid_request_error", "invalid_api_key", message)

    async def models(self, request: Request) -> Response:
        del request
        return JSONResponse({"object": "list", "data": [_model_json(name) for name in MODELS]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in MODELS:
            message = f"The model '{name}' does not exist or you do not have access to it."
            raise OpenAIRefusal(404, "invalid_request_error", "model_not_found", message, "model")
        return JSONResponse(_model_json(name))

    # --- images ---------------------------------------------------------------------------------------------

    async def generations(self, request: Request) -> Response:
        raw = await request.body()
        try:
            fields = json.loads(raw)
        except ValueError:
            raise refuse("invalid_json", "We could not parse the JSON body of your request.", None) from None
        if not isinstance(fields, dict):
            raise refuse("invalid_type", "The body must be an object.", None)
        order = read_order("generation", cast("dict[str, Any]", fields))

        def draw(index: int) -> Image.Image:
            size = order.size or _DEFAULT_SIZE
            return paint_prompt(prompt=order.prompt, size=size, background=order.background, seed=self._seed + index)

        return await self._paid(request, order, raw, draw, image_tokens=0)

    async def edits(self, request: Request) -> Response:
        async with request.form(max_files=40, max_part_size=64 * 1024 * 1024) as form:
            fields: dict[str, Any] = {}
            images: list[tuple[bytes, str]] = []
            mask: bytes | None = None
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    fields[name] = value
                elif name in ("image", "image[]"):
                    images.append((await value.read(), value.content_type or ""))
                elif name == "mask":
                    mask = await value.read()
                elif name != "markup":
                    raise refuse("unknown_parameter", f"Unknown parameter: '{name}'.", name)
        order = read_order("edit", fields)
        check_images(images)
        photo = await asyncio.to_thread(_open, images[0][0])
        drawn = None if mask is None else await asyncio.to_thread(_open, mask)
        if mask is not None and drawn is not None:
            check_mask(mask, photo, drawn)
        is_sketch = "sketch" in order.prompt.lower()

        def draw(index: int) -> Image.Image:
            if is_sketch and drawn is None:
                return render_sketch(photo, prompt=order.prompt, seed=self._seed + index)
            return transform_photo(
                photo,
                prompt=order.prompt,
                size=order.size,
                background=order.background,
                seed=self._seed + index,
                mask=drawn,
            )

        digest = b"".join(hashlib.sha256(data).digest() for data, _ in images) + json.dumps(fields).encode()
        return await self._paid(request, order, digest, draw, image_tokens=3000 * len(images))

    async def _paid(
        self, request: Request, order: ImageOrder, body: bytes, draw: Callable[[int], Image.Image], *, image_tokens: int
    ) -> Response:
        await asyncio.sleep(self._script.knobs.submit_seconds)
        before = self._script.take("openai", after=False)
        if before is not None:
            answer = await strike(before, request) or _refusal_of(before)
            if answer is not None:
                return answer
        after = self._script.take("openai", after=True)
        usage = _usage(order, image_tokens)
        charged = (
            usage["input_tokens_details"]["text_tokens"] * _TEXT_PRICE
            + image_tokens * _IMAGE_IN_PRICE
            + usage["output_tokens"] * _OUTPUT_PRICE
        )
        number = await asyncio.to_thread(
            self._store.accept_images,
            account_of(self._key),
            order.kind,
            hashlib.sha256(body).hexdigest(),
            charged,
        )
        if after is not None:
            answer = await strike(after, request)
            if answer is not None:
                return answer
        work = asyncio.to_thread(_draw_all, draw, order)
        pictures, _ = await asyncio.gather(work, asyncio.sleep(self._script.knobs.work_seconds))
        if before is not None:
            pictures = _spoil(before, pictures)
        await asyncio.to_thread(self._store.delivered, number)
        if order.stream:
            return StreamingResponse(_events(order, pictures, usage), media_type="text/event-stream")
        return JSONResponse(_reply(order, pictures, None if before and before.kind == "no_usage" else usage))


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        image.load()
    except (OSError, ValueError, SyntaxError):
        raise refuse("invalid_image_file", "Invalid image file or mode for image 1.", "image") from None
    return image


def _draw_all(draw: Callable[[int], Image.Image], order: ImageOrder) -> list[str]:
    return [_encode(draw(index), order.output_format) for index in range(order.n)]


def _encode(image: Image.Image, format_name: str) -> str:
    buffer = io.BytesIO()
    if format_name == "jpeg":
        image.convert("RGB").save(buffer, "JPEG", quality=92)
    elif format_name == "webp":
        image.save(buffer, "WEBP", quality=92)
    else:
        image.save(buffer, "PNG", compress_level=3)
    return base64.b64encode(buffer.getvalue()).decode()


def _usage(order: ImageOrder, image_tokens: int) -> dict[str, Any]:
    text_tokens = max(1, len(order.prompt) // 4)
    output = order.output_tokens + 100 * order.partial_images * order.stream
    return {
        "input_tokens": text_tokens + image_tokens,
        "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": image_tokens},
        "output_tokens": output,
        "output_tokens_details": {"image_tokens": output, "text_tokens": 0},
        "total_tokens": text_tokens + image_tokens + output,
    }


def _reply(order: ImageOrder, pictures: list[str], usage: dict[str, Any] | None) -> dict[str, Any]:
    width, height = order.size or _DEFAULT_SIZE
    reply: dict[str, Any] = {
        "created": int(time.time()),
        "background": "opaque" if order.background == "auto" else order.background,
        "output_format": order.output_format,
        "quality": "medium" if order.quality == "auto" else order.quality,
        "size": f"{width}x{height}",
        "data": [{"b64_json": picture} for picture in pictures],
    }
    return reply if usage is None else {**reply, "usage": usage}


async def _events(order: ImageOrder, pictures: list[str], usage: dict[str, Any]) -> AsyncGenerator[bytes]:
    word = "image_generation" if order.kind == "generation" else "image_edit"
    common = {key: value for key, value in _reply(order, [], None).items() if key not in ("created", "data")}
    streamed_usage = {key: value for key, value in usage.items() if key != "output_tokens_details"}
    for picture in pictures:
        for index in range(order.partial_images):
            partial = {"partial_image_index": index, "b64_json": picture, "created_at": int(time.time()), **common}
            yield _event(f"{word}.partial_image", partial)
        final = {"b64_json": picture, "created_at": int(time.time()), **common, "usage": streamed_usage}
        yield _event(f"{word}.completed", final)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def _refusal_of(fault: Fault) -> Response | None:
    match fault.kind:
        case "moderation":
            details = {"moderation_details": {"moderation_stage": "input", "categories": ["violence"]}}
            message = "Your request was rejected by the safety system."
            kind = "image_generation_user_error"
            return OpenAIRefusal(400, kind, "moderation_blocked", message, extra=details).response()
        case "quota":
            message = "You exceeded your current quota, please check your plan and billing details."
            return OpenAIRefusal(429, "insufficient_quota", "credit_balance_exhausted", message).response()
        case "rate_limit":
            message = "Rate limit reached on input-images per min: Limit 250, Used 250, Requested 1."
            headers = {"retry-after": "1"} | fault.headers
            return OpenAIRefusal(429, "input-images", "rate_limit_exceeded", message, headers=headers).response()
        case "bad_key":
            message = "Incorrect API key provided."
            return OpenAIRefusal(401, "invalid_request_error", "invalid_api_key", message).response()
        case _:
            return None


def _spoil(fault: Fault, pictures: list[str]) -> list[str]:
    match fault.kind:
        case "fewer_images":
            return pictures[:-1]
        case "broken_image":
            return [*pictures[:-1], base64.b64encode(b"this is no picture").decode()]
        case "jpeg_for_png":
            opened = [Image.open(io.BytesIO(base64.b64decode(picture))) for picture in pictures]
            return [_encode(picture, "jpeg") for picture in opened]
        case _:
            return pictures


def _model_json(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_776_729_600, "owned_by": "sandbox"}
