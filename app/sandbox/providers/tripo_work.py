"""Doing the work of a Tripo task: real meshes and pictures from the real inputs, in a thread, surviving restarts."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from typing import Any

from PIL import Image

from app.sandbox.media.images import paint_prompt, render_sketch, transform_photo
from app.sandbox.media.models import build_model
from app.sandbox.media.preview import render_preview
from app.sandbox.media.retexture import retexture_model
from app.sandbox.providers.store import Store, Task
from app.sandbox.providers.tripo_rules import is_task_id

_TEXTURE_SIDES = {"fast": 512, "standard": 1024, "detailed": 2048, "extreme": 4096}
_CONCEPT_SIDE = 768
_FAILURES = {
    "failed": ("failed", 2008, "content policy"),
    "failed_1001": ("failed", 1001, "server error"),
    "banned": ("banned", 2008, "banned"),
    "expired": ("failed", 2018, "expired in queue"),
    "cancelled": ("cancelled", None, None),
}


class TripoWork:
    """One asyncio task per unfinished Tripo task; the database knows them all."""

    def __init__(self, store: Store, results: Path) -> None:
        self._store = store
        self._results = results
        self._results.mkdir(parents=True, exist_ok=True)
        self._running: set[asyncio.Task[None]] = set()
        self._builders = asyncio.Semaphore(2)

    def resume(self) -> None:
        """Go on with what a crash left unfinished."""
        for task in self._store.unfinished():
            self.begin(task)

    def begin(self, task: Task) -> None:
        running = asyncio.create_task(self._run(task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def close(self) -> None:
        for running in list(self._running):
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self, task: Task) -> None:
        if task.fault in ("stays_queued", "stays_at_99", "unknown"):
            return
        until = task.created_at + task.work_seconds
        if task.fault in _FAILURES:
            await asyncio.sleep(max(0.0, until - time.time()))
            status, code, message = _FAILURES[task.fault]
            await asyncio.to_thread(self._store.finish, task, status, error_code=code, error_message=message)
            return
        try:
            async with self._builders:
                output = await asyncio.to_thread(self._build, task)
        except (ValueError, OSError) as error:
            await asyncio.to_thread(
                self._store.finish, task, "failed", error_code=2018, error_message=f"too complex: {error}"
            )
            return
        await asyncio.sleep(max(0.0, until - time.time()))
        if task.fault == "no_output":
            output = {}
        await asyncio.to_thread(self._store.finish, task, "success", output=output)

    # --- in a thread ----------------------------------------------------------------------------------------

    def _build(self, task: Task) -> dict[str, str]:
        body = task.input
        match task.kind:
            case "text-to-model":
                seed = int(body.get("image_seed") or body.get("model_seed") or 0)
                concept = paint_prompt(
                    prompt=body["prompt"], size=(_CONCEPT_SIDE, _CONCEPT_SIDE), background="opaque", seed=seed
                )
                return self._model(task, [concept, None, None, None])
            case "image-to-model":
                return self._model(task, [self._picture(body["input"]), None, None, None])
            case "multiview-to-model":
                return self._model(task, self._views(body["inputs"]))
            case "image-to-image" | "text-to-image":
                return self._image(task)
            case "texture":
                return self._texture(task)
            case "import":
                path, _ = self._file(body["input"])
                return self._store_model(task, path.read_bytes(), preview=False)
            case _:
                return self._store_model(task, self._model_bytes(body["input"]), preview=False)

    def _model(self, task: Task, views: list[Image.Image | None]) -> dict[str, str]:
        body = task.input
        texture = bool(body.get("texture", True) or body.get("pbr", True))
        glb = build_model(
            views,
            face_limit=body.get("face_limit"),
            texture=texture,
            pbr=bool(body.get("pbr", True)),
            texture_size=_TEXTURE_SIDES.get(str(body.get("texture_quality", "standard")), 1024),
            seed=int(body.get("model_seed") or 0),
        )
        return self._store_model(task, glb, preview=True)

    def _texture(self, task: Task) -> dict[str, str]:
        body = task.input
        prompt = body.get("texture_prompt") or {}
        reference = self._picture(prompt["image"]) if "image" in prompt else None
        glb = retexture_model(
            self._model_bytes(body["input"]),
            prompt=prompt.get("text"),
            reference=reference,
            texture_size=_TEXTURE_SIDES.get(str(body.get("texture_quality", "standard")), 1024),
            seed=int(body.get("texture_seed") or 0),
        )
        return self._store_model(task, glb, preview=True)

    def _image(self, task: Task) -> dict[str, str]:
        body = task.input
        seed = int(body.get("image_seed") or 0)
        if task.kind == "text-to-image":
            picture = paint_prompt(prompt=body["prompt"], size=(1024, 1024), background="opaque", seed=seed)
        else:
            source = self._picture(body.get("input") or body["inputs"][0])
            prompt = str(body.get("prompt", ""))
            if body.get("sketch_to_render"):
                picture = render_sketch(source, prompt=prompt, seed=seed)
            else:
                picture = transform_photo(source, prompt=prompt, size=None, background="opaque", seed=seed)
        name = f"{task.id}.png"
        picture.save(self._results / name, "PNG")
        return {"generated_image_url": name}

    def _store_model(self, task: Task, glb: bytes, *, preview: bool) -> dict[str, str]:
        name = f"{task.id}.glb"
        if task.fault == "wrong_format":
            glb = b"Kaydara FBX Binary  \x00" + glb[:1000]
        (self._results / name).write_bytes(glb)
        output = {"model_url": name}
        if preview and task.fault != "wrong_format":
            picture = f"{task.id}.webp"
            render_preview(glb).save(self._results / picture, "WEBP", quality=88)
            output["rendered_image_url"] = picture
        return output

    def _views(self, inputs: list[Any]) -> list[Image.Image | None]:
        order = ("front", "left", "back", "right")
        if all(isinstance(item, dict) for item in inputs):
            named = {name: value for item in inputs for name, value in item.items()}
            return [self._picture(named[name]) if named.get(name) else None for name in order]
        return [self._picture(item) if item else None for item in inputs]

    def _picture(self, reference: str) -> Image.Image:
        if is_task_id(reference):
            path = self._results / f"{reference}.png"
        else:
            path, _ = self._file(reference)
        image = Image.open(io.BytesIO(path.read_bytes()), formats=("PNG", "JPEG", "WEBP"))
        image.load()
        return image

    def _model_bytes(self, reference: str) -> bytes:
        path = self._results / f"{reference}.glb" if is_task_id(reference) else self._file(reference)[0]
        return path.read_bytes()

    def _file(self, token: str) -> tuple[Path, str]:
        found = self._store.file(token)
        if found is None:
            raise ValueError("file is gone")
        return found
