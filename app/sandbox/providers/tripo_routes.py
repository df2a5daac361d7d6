"""Tripo v3: creates, polls, uploads, account and signed downloads."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.config import SandboxSettings
from app.sandbox.providers.accounts import account_of
from app.sandbox.providers.faults import Fault, Script, abort, strike
from app.sandbox.providers.store import Store, Task
from app.sandbox.providers.tripo_rules import TripoRefusal, bad_parameter, check_body, is_task_id, pool_of, price_of
from app.sandbox.providers.tripo_work import TripoWork

_IMAGE_BYTES = 20 * 1024 * 1024
_MODEL_BYTES = 150 * 1024 * 1024
_LIST_LIMIT = 100
_BLOCK = 256 * 1024
_CREATES = {
    "/generation/text-to-model": "text-to-model",
    "/generation/image-to-model": "image-to-model",
    "/generation/multiview-to-model": "multiview-to-model",
    "/generation/image-to-image": "image-to-image",
    "/generation/text-to-image": "text-to-image",
    "/models/texture": "texture",
    "/models/convert": "convert",
    "/models/import": "import",
}

Handler = Callable[[Request], Awaitable[Response]]


class TripoRoutes:
    def __init__(self, settings: SandboxSettings, store: Store, script: Script, work: TripoWork, results: Path) -> None:
        self._key = settings.tripo_api_key.get_secret_value()
        self._account = account_of(self._key)
        self._base = f"{settings.public_url}/tripo"
        self._store = store
        self._script = script
        self._work = work
        self._results = results
        self._recent: dict[str, deque[float]] = {"create": deque(), "upload": deque()}

    def routes(self) -> list[Route]:
        creates = [
            Route(path, self._answering(self._creating(kind)), methods=["POST"]) for path, kind in _CREATES.items()
        ]
        return [
            *creates,
            Route("/models/refine", self._answering(self.refine), methods=["POST"]),
            Route("/files", self._answering(self.upload), methods=["POST"]),
            Route("/files/presign", self._answering(self.presign), methods=["POST"]),
            Route("/files/put/{token}", self.put, methods=["PUT"]),
            Route("/tasks/list", self._answering(self.list), methods=["POST"]),
            Route("/tasks/{id}", self._answering(self.task), methods=["GET"]),
            Route("/account/balance", self._answering(self.balance), methods=["GET"]),
            Route("/account/usage", self._answering(self.usage), methods=["GET"]),
            Route("/{path:path}", self._answering(self.nowhere), methods=["GET", "POST", "PUT", "DELETE"]),
        ]

    def _answering(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            try:
                if request.headers.get("authorization") != f"Bearer {self._key}":
                    raise TripoRefusal(401, 2, "Authentication failed")
                response = await handler(request)
            except TripoRefusal as refusal:
                response = refusal.response()
            response.headers["X-Tripo-Trace-ID"] = request.headers.get("x-tripo-trace-id", str(uuid4()))
            limit = self._script.knobs.creations_per_minute
            response.headers.setdefault("X-RateLimit-Limit", str(limit))
            response.headers.setdefault("X-RateLimit-Remaining", str(max(0, limit - len(self._recent["create"]))))
            response.headers.setdefault("X-RateLimit-Reset", "1")
            response.headers["X-MakeIt3D-Sandbox"] = "sandbox"
            return response

        return answer

    # --- creating -------------------------------------------------------------------------------------------

    def _creating(self, kind: str) -> Handler:
        async def create(request: Request) -> Response:
            raw = await request.body()
            body = _object(raw)
            await asyncio.sleep(self._script.knobs.submit_seconds)
            before = self._script.take("tripo.submit", after=False)
            if before is not None:
                answer = await strike(before, request) or _named_refusal(before)
                if answer is not None:
                    return answer
            self._limit("create", self._script.knobs.creations_per_minute)
            check_body(kind, body)
            await asyncio.to_thread(self._check_inputs, kind, body)
            task_id = await asyncio.to_thread(self._accept, kind, body, raw)
            after = self._script.take("tripo.submit", after=True)
            if after is not None:
                answer = await strike(after, request)
                if answer is not None:
                    return answer
            return _success({"task_id": task_id, "type": kind.replace("-", "_"), "status": "queued"})

        return create

    def _accept(self, kind: str, body: dict[str, Any], raw: bytes) -> str:
        pool = pool_of(kind, body)
        slots = self._script.knobs.pools[pool]
        if self._store.open_in_pool(self._account, pool) >= slots:
            raise TripoRefusal(429, 2000, "Concurrency limit reached", {"Retry-After": "2"})
        fault = self._script.take("tripo.task")
        task_id = self._store.accept_task(
            self._account,
            kind,
            pool,
            body,
            hashlib.sha256(raw).hexdigest(),
            price=price_of(kind, body),
            work_seconds=0.0 if kind == "import" else self._script.knobs.work_seconds,
            fault=None if fault is None else fault.kind,
        )
        if task_id is None:
            raise TripoRefusal(403, 2010, "You need more credits")
        task = self._store.task(task_id, self._account)
        assert task is not None  # noqa: S101 - just written
        self._loop.call_soon_threadsafe(self._work.begin, task)
        return task_id

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that work runs on; called once it runs."""
        self._loop = loop

    def _check_inputs(self, kind: str, body: dict[str, Any]) -> None:
        match kind:
            case "image-to-model":
                self._check_picture(body.get("input"))
            case "multiview-to-model":
                self._check_views(body.get("inputs"))
            case "image-to-image":
                self._check_picture(body.get("input") or (body.get("inputs") or [None])[0])
            case "texture" | "convert":
                self._check_model(body.get("input"))
                if kind == "texture":
                    self._check_texture_prompt(body)
            case "import":
                if not isinstance(body.get("input"), str) or self._store.file(body["input"], self._account) is None:
                    raise bad_parameter("input is not a file of this account")
            case _:
                pass

    def _check_picture(self, value: object) -> None:
        if not isinstance(value, str) or value.startswith(("data:", "http")):
            raise bad_parameter("input must be a file token or a task id")
        if is_task_id(value):
            task = self._store.task(value, self._account)
            if task is None or "generated_image_url" not in task.output:
                raise TripoRefusal(404 if task is None else 400, 2001 if task is None else 2006, "input task")
            return
        found = self._store.file(value, self._account)
        if found is None or not found[1].startswith("image/"):
            raise bad_parameter("input is not an image of this account")

    def _check_views(self, inputs: object) -> None:
        if not isinstance(inputs, list) or len(inputs) > 4:
            raise bad_parameter("inputs takes up to four views")
        items = cast("list[Any]", inputs)
        named = all(isinstance(item, dict) for item in items)
        views: dict[str, Any] = {}
        for position, item in enumerate(items):
            views |= item if named else {str(position): item}
        given = [value for value in views.values() if value]
        if len(given) < 2 or not views.get("front" if named else "0"):
            raise bad_parameter("the front view and one more are needed")
        for value in given:
            self._check_picture(value)

    def _check_model(self, value: object) -> None:
        if not isinstance(value, str):
            raise bad_parameter("input is required")
        if not is_task_id(value):
            if self._store.file(value, self._account) is None:
                raise bad_parameter("input is not a file of this account")
            return
        task = self._store.task(value, self._account)
        if task is None:
            raise TripoRefusal(404, 2001, "Task not found")
        if task.status != "success":
            raise TripoRefusal(400, 2005, "Source task is not successful")
        if "model_url" not in task.output:
            raise TripoRefusal(400, 2007, "Source task has no model")

    def _check_texture_prompt(self, body: dict[str, Any]) -> None:
        prompt = body.get("texture_prompt") or {}
        if "image" in prompt:
            self._check_picture(prompt["image"])
        source = self._store.task(body["input"], self._account) if is_task_id(body["input"]) else None
        if (source is None or source.kind == "import") and not prompt:
            raise bad_parameter("an imported model needs a texture_prompt")

    def _limit(self, what: str, per_minute: int) -> None:
        now = time.monotonic()
        recent = self._recent[what]
        while recent and now - recent[0] > 60:
            recent.popleft()
        if len(recent) >= per_minute:
            reset = str(int(60 - (now - recent[0])) + 1)
            raise TripoRefusal(
                429, 1007, "Too many requests", {"X-RateLimit-Reset": reset, "X-RateLimit-Remaining": "0"}
            )
        recent.append(now)

    async def refine(self, request: Request) -> Response:
        del request
        raise TripoRefusal(400, 2015, "This version is deprecated")

    async def nowhere(self, request: Request) -> Response:
        del request
        raise TripoRefusal(404, 4001, "No such route")

    # --- uploads --------------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        fault = self._script.take("tripo.upload")
        if fault is not None:
            answer = await strike(fault, request)
            if answer is not None:
                return answer
        self._limit("upload", self._script.knobs.uploads_per_minute)
        async with request.form(max_files=1) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise TripoRefusal(400, 2019, "file is missing")
            content_type = file.content_type or ""
            limit = _IMAGE_BYTES if content_type.startswith("image/") else _MODEL_BYTES
            if (file.size or 0) > limit:
                raise TripoRefusal(413, 2021, "file is too large")
            token = await asyncio.to_thread(self._store.add_file, self._account, content_type)
            await asyncio.to_thread(_save, file, self._store.files / token)
        return _success({"file_token": token})

    async def presign(self, request: Request) -> Response:
        kind = str(_object(await request.body()).get("format", ""))
        content_type = "model/gltf-binary" if kind == "glb" else f"image/{kind}"
        token = await asyncio.to_thread(self._store.add_file, self._account, content_type, state="awaited")
        expires = int(time.time()) + 1800
        url = f"{self._base}/v3/files/put/{token}?exp={expires}&sig={self._signature(token, expires)}"
        return _success({"presigned_url": url, "file_token": token, "expires_in": 1800})

    async def put(self, request: Request) -> Response:
        token = request.path_params["token"]
        if not self._signed(token, request) or request.headers.get("authorization"):
            return Response(status_code=403)
        with (self._store.files / token).open("wb") as sink:
            async for block in request.stream():
                await asyncio.to_thread(sink.write, block)
        return Response(status_code=200)

    # --- reading --------------------------------------------------------------------------------------------

    async def task(self, request: Request) -> Response:
        fault = self._script.take("tripo.poll")
        if fault is not None:
            answer = await self._poll_fault(fault, request)
            if answer is not None:
                return answer
        found = await asyncio.to_thread(self._store.task, request.path_params["id"], self._account)
        if found is None:
            raise TripoRefusal(404, 2001, "Task not found")
        return _success(self._task_json(found))

    async def list(self, request: Request) -> Response:
        ids = _object(await request.body()).get("task_ids")
        if not isinstance(ids, list) or not 1 <= len(cast("list[Any]", ids)) <= _LIST_LIMIT:
            raise bad_parameter("task_ids takes 1 to 100 ids")
        fault = self._script.take("tripo.poll")
        if fault is not None:
            answer = await self._poll_fault(fault, request)
            if answer is not None:
                return answer
        tasks: dict[str, Any] = {}
        missed: list[str] = []
        for task_id in cast("list[str]", ids):
            found = await asyncio.to_thread(self._store.task, str(task_id), self._account)
            if found is None or (fault is not None and fault.kind == "missed"):
                missed.append(task_id)
                continue
            tasks[task_id] = self._task_json(found)
            if fault is not None and fault.kind == "null_progress":
                tasks[task_id]["progress"] = None
        shaped: Any = tasks if self._script.knobs.list_shape == "dict" else list(tasks.values())
        return _success({"tasks": shaped, "missed": missed})

    @staticmethod
    async def _poll_fault(fault: Fault, request: Request) -> Response | None:
        if fault.kind == "code_200":
            return JSONResponse({"code": 1001, "status": "error", "message": "server error"})
        return await strike(fault, request)

    def _task_json(self, task: Task) -> dict[str, Any]:
        value: dict[str, Any] = {
            "task_id": task.id,
            "type": task.kind.replace("-", "_"),
            "status": "some_new_word" if task.fault == "unknown" else task.status,
            "progress": _progress(task),
            "input": task.input,
            "created_at": _iso(task.created_at),
        }
        if task.fault == "stays_queued":
            value |= {"status": "queued", "progress": 0}
        if task.finished_at is not None:
            value["completed_at"] = _iso(task.finished_at)
            value["credits_consumed"] = float(task.consumed)
        if task.status == "success" and task.output:
            value["output"] = {name: self._link(file) for name, file in task.output.items()}
        if task.error_code is not None:
            value |= {"error_code": task.error_code, "error_message": task.error_message}
        return value

    async def balance(self, request: Request) -> Response:
        fault = self._script.take("tripo.account")
        if fault is not None and (answer := await strike(fault, request)) is not None:
            return answer
        balance, frozen = await asyncio.to_thread(self._store.money, self._account)
        return _success({"balance": float(balance - frozen), "frozen": float(frozen)})

    async def usage(self, request: Request) -> Response:
        fault = self._script.take("tripo.account")
        if fault is not None and (answer := await strike(fault, request)) is not None:
            return answer
        limit = min(200, max(1, int(request.query_params.get("limit", 50))))
        offset = max(0, int(request.query_params.get("offset", 0)))
        tasks = await asyncio.to_thread(self._store.tasks_of, self._account, limit=limit, offset=offset)
        horizon = time.time() - self._script.knobs.usage_delay_seconds
        rows = [
            {
                "task_id": task.id,
                "type": task.kind.replace("-", "_"),
                "status": task.status,
                "created_at": _iso(task.created_at),
                "credits_consumed": float(task.consumed),
            }
            for task in tasks
            if task.created_at <= horizon and not (fault is not None and fault.kind == "empty_usage")
        ]
        return _success({"items": rows} if self._script.knobs.usage_shape == "items" else rows)

    # --- downloads ------------------------------------------------------------------------------------------

    def _link(self, name: str) -> str:
        expires = int(time.time() + self._script.knobs.link_seconds)
        return f"{self._base}/dl/{name}?exp={expires}&sig={self._signature(name, expires)}"

    def _signature(self, name: str, expires: int) -> str:
        return hmac.new(self._key.encode(), f"{name}:{expires}".encode(), hashlib.sha256).hexdigest()[:32]

    def _signed(self, name: str, request: Request) -> bool:
        try:
            expires = int(request.query_params.get("exp", "0"))
        except ValueError:
            return False
        good = hmac.compare_digest(self._signature(name, expires), request.query_params.get("sig", ""))
        return good and time.time() < expires

    async def download(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._results / name
        fault = self._script.take("tripo.download")
        if not self._signed(name, request) or (fault is not None and fault.kind == "expired"):
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        if not await asyncio.to_thread(path.is_file) or (fault is not None and fault.kind == "missing"):
            return Response(status_code=404)
        if fault is not None:
            answer = await self._download_fault(fault, request)
            if answer is not None:
                return answer
        await asyncio.to_thread(self._store.task_delivered, path.stem)
        kinds = {".glb": "model/gltf-binary", ".png": "image/png", ".webp": "image/webp"}
        size = (await asyncio.to_thread(path.stat)).st_size
        headers = {"content-length": str(size), "content-type": kinds.get(path.suffix, "application/octet-stream")}
        return StreamingResponse(_blocks(path, size, fault, request), headers=headers)

    @staticmethod
    async def _download_fault(fault: Fault, request: Request) -> Response | None:
        match fault.kind:
            case "html":
                return Response("<html>sign in</html>", media_type="text/html")
            case "redirect":
                return Response(status_code=302, headers={"location": "http://169.254.169.254/latest/meta-data"})
            case "huge":
                return Response(b"glTF", headers={"content-length": str(10**12)})
            case _:
                return await strike(fault, request)


async def _blocks(path: Path, size: int, fault: Fault | None, request: Request) -> AsyncGenerator[bytes]:
    sent = 0
    with path.open("rb") as source:
        while block := await asyncio.to_thread(source.read, _BLOCK if fault is None else 16 * 1024):
            if fault is not None and fault.kind == "cut" and sent + len(block) >= size // 2:
                abort(request)
                return
            if fault is not None and fault.kind == "slow":
                await asyncio.sleep(0.05)
            sent += len(block)
            yield block


def _success(data: object) -> Response:
    return JSONResponse({"code": 0, "status": "success", "data": data})


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        raise TripoRefusal(400, 1003, "The body is not JSON") from None
    if not isinstance(value, dict):
        raise TripoRefusal(400, 1003, "The body is not an object")
    return cast("dict[str, Any]", value)


def _named_refusal(fault: Fault) -> Response | None:
    table = {
        "credits": TripoRefusal(403, 2010, "You need more credits"),
        "busy": TripoRefusal(429, 2000, "Concurrency limit reached", {"Retry-After": "1"}),
        "rate": TripoRefusal(429, 1007, "Too many requests", {"X-RateLimit-Reset": "1"}),
        "moderation": TripoRefusal(400, 2008, "Content policy"),
        "bad_key": TripoRefusal(401, 2, "Authentication failed"),
    }
    refusal = table.get(fault.kind)
    return None if refusal is None else refusal.response()


def _save(file: UploadFile, target: Path) -> None:
    with target.open("wb") as sink:
        while block := file.file.read(_BLOCK):
            sink.write(block)


def _progress(task: Task) -> int:
    if task.finished_at is not None:
        return 100
    if task.fault == "stays_at_99":
        return 99
    elapsed = time.time() - task.created_at
    return min(99, int(100 * elapsed / max(task.work_seconds, 0.001)))


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
