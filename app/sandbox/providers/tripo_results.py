"""Making the result of a Tripo task from its real inputs. Runs on a builder thread; knows files, not the store."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from app.sandbox import media
from app.sandbox.providers.stock import PREVIEW_SIZE, stock_image, stock_model
from app.sandbox.providers.tripo_files import sniff_file
from app.sandbox.providers.tripo_meshes import Placing, as_glb, export, turned
from app.sandbox.providers.tripo_prices import is_textured
from app.sandbox.providers.tripo_references import VIEWS, by_view
from app.sandbox.providers.tripo_strict import picture_size
from app.sandbox.providers.tripo_tasks import Task

_TEXTURE_SIDES = {"fast": 512, "standard": 1024, "detailed": 2048, "extreme": 4096}
_DETAILED_FACES = 96_000
_LOW_POLY_FACES = 5_000
_CONCEPT, _BARE_CONCEPT = (768, 768), (512, 512)
_MAX_PIXELS = 100_000_000
_PREVIEW_TURN = 32.0  # degrees by which a preview looks from the side
_TURNS = {"front": 0.0, "left": -90.0, "back": 180.0, "right": 90.0}
_HEAVY_BYTES = 300 * 1024 * 1024
_FBX = b"Kaydara FBX Binary  \x00\x1a\x00"


@dataclass(frozen=True, slots=True)
class Job:
    """A task with the files that its body names."""

    task: Task
    pictures: Mapping[str, Path]
    models: Mapping[str, Path]
    views: Mapping[str, Mapping[str, Path]]
    """Four pictures by view, of tasks that made them."""
    model_bytes: int | None = None
    """What a model has at least."""


class Maker:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, job: Job, *, stock: bool = False) -> dict[str, str]:
        """Names of the written files by the keys of ``output``. Raises ValueError or OSError for bad input."""
        body = job.task.body
        match job.task.kind:
            case "text-to-model" | "image-to-model" | "multiview-to-model" | "texture" if stock:
                return self._keep(job, stock_model(), preview=stock_image(PREVIEW_SIZE))
            case "text-to-model":
                seed = int(body.get("image_seed") or body.get("model_seed") or 0)
                size = _CONCEPT if is_textured(body) else _BARE_CONCEPT
                concept = media.paint_prompt(prompt=body["prompt"], size=size, background="opaque", seed=seed)
                return self._model(job, [concept, None, None, None])
            case "image-to-model":
                return self._model(job, [_picture(job, body["input"]), None, None, None])
            case "multiview-to-model":
                return self._model(job, _given_views(job))
            case "text-to-image" | "image-to-image":
                return self._picture(job)
            case "image-to-multiview":
                return self._turn_round(job)
            case "edit-multiview":
                return self._edit_views(job)
            case "texture":
                return self._texture(job)
            case "import":
                return self._keep(job, _model(job), preview=None)
            case _:
                return self._export(job)

    # --- models ---------------------------------------------------------------------------------------------

    def _model(self, job: Job, views: list[Image.Image | None]) -> dict[str, str]:
        body = job.task.body
        faces = body.get("face_limit")
        if faces is None and body.get("smart_low_poly"):
            faces = _LOW_POLY_FACES
        if faces is None and body.get("geometry_quality") == "detailed":
            faces = _DETAILED_FACES
        glb = media.build_model(
            views,
            face_limit=faces,
            texture=is_textured(body),
            pbr=body.get("pbr") is not False,
            texture_size=_texture_side(body),
            seed=int(body.get("model_seed") or 0),
        )
        return self._keep(job, glb, preview=media.render_preview(glb))

    def _texture(self, job: Job) -> dict[str, str]:
        body = job.task.body
        prompt = body.get("texture_prompt") or {}
        named = prompt.get("image") or next(iter(prompt.get("images") or ()), None) or prompt.get("style_image")
        glb = media.retexture_model(
            _model(job),
            prompt=prompt.get("text"),
            reference=None if named is None else _picture(job, named),
            texture_size=_texture_side(body),
            seed=int(body.get("texture_seed") or 0),
        )
        return self._keep(job, glb, preview=media.render_preview(glb))

    def _export(self, job: Job) -> dict[str, str]:
        body = job.task.body
        placing = Placing(float(body.get("scale_factor") or 1.0), bool(body.get("pivot_to_center_bottom")))
        content, suffix = export(_model(job), body["format"], placing)
        return {"model_url": self._write(f"{job.task.id}{suffix}", content)}

    def _keep(self, job: Job, glb: bytes, *, preview: Image.Image | None) -> dict[str, str]:
        name = f"{job.task.id}.glb"
        if job.task.fault == "wrong_format":
            return {"model_url": self._write(name, _FBX + glb[:4096])}
        output: dict[str, str] = {}
        if preview is not None:
            output["rendered_image_url"] = self._save(f"{job.task.id}.webp", preview)
        size = _HEAVY_BYTES if job.task.fault == "heavy" else job.model_bytes
        return {"model_url": self._write(name, glb if size is None else _padded(glb, size)), **output}

    # --- pictures -------------------------------------------------------------------------------------------

    def _picture(self, job: Job) -> dict[str, str]:
        body = job.task.body
        seed, prompt = int(body.get("image_seed") or 0), str(body.get("prompt") or body.get("template") or "")
        size = picture_size(body["size"]) if body.get("size") else None
        if job.task.kind == "text-to-image":
            made = media.paint_prompt(prompt=prompt, size=size or (1024, 1024), background="opaque", seed=seed)
        else:
            source = _picture(job, body["input"] if body.get("input") else body["inputs"][0])
            if body.get("sketch_to_render"):
                made = media.render_sketch(source, prompt=prompt, seed=seed)
                made = made if size is None else made.resize(size, Image.Resampling.LANCZOS)
            else:
                made = media.transform_photo(source, prompt=prompt, size=size, background="opaque", seed=seed)
        suffix = ".jpg" if body.get("output_format") == "jpeg" else ".png"
        return {"generated_image_url": self._save(f"{job.task.id}{suffix}", made)}

    def _turn_round(self, job: Job) -> dict[str, str]:
        """Four sides of a solid that is built from the picture."""
        picture = _picture(job, job.task.body["input"])
        solid = media.build_model([picture], face_limit=None, texture=True, pbr=False, texture_size=1024, seed=0)
        output: dict[str, str] = {}
        for view, degrees in _TURNS.items():
            shown = media.render_preview(turned(solid, degrees + _PREVIEW_TURN))
            output[f"{view}_view_url"] = self._save(f"{job.task.id}.{view}.png", shown)
        return output

    def _edit_views(self, job: Job) -> dict[str, str]:
        body = job.task.body
        output: dict[str, str] = {}
        for view, path in job.views[body["input"]].items():
            made = media.transform_photo(_opened(path), prompt=body["prompt"], size=None, background="opaque", seed=0)
            output[f"{view}_view_url"] = self._save(f"{job.task.id}.{view}.png", made)
        return output

    # --- files ----------------------------------------------------------------------------------------------

    def _save(self, name: str, picture: Image.Image) -> str:
        path = self._directory / f"{name}.part"
        match Path(name).suffix:
            case ".webp":
                picture.save(path, "WEBP", quality=88)
            case ".jpg":
                picture.convert("RGB").save(path, "JPEG", quality=92)
            case _:
                picture.save(path, "PNG", compress_level=3)
        path.replace(self._directory / name)
        return name

    def _write(self, name: str, content: bytes) -> str:
        path = self._directory / f"{name}.part"
        path.write_bytes(content)
        path.replace(self._directory / name)
        return name


def _padded(glb: bytes, size: int) -> bytes:
    """The same model, made heavy by a chunk of a type that readers skip."""
    padding = (size - len(glb) - 8) // 4 * 4
    if padding < 0:
        return glb
    header = struct.pack("<4sII", b"glTF", 2, len(glb) + 8 + padding)
    return b"".join((header, glb[12:], struct.pack("<I4s", padding, b"PADD"), bytes(padding)))


def _texture_side(body: Mapping[str, Any]) -> int:
    return _TEXTURE_SIDES.get(str(body.get("texture_quality")), _TEXTURE_SIDES["standard"])


def _given_views(job: Job) -> list[Image.Image | None]:
    inputs = job.task.body["inputs"]
    if len(inputs) == 1:
        views = job.views[inputs[0]["task_id"]]
        return [_opened(views[view]) for view in VIEWS]
    return [None if named is None else _picture(job, named.value) for named in by_view(inputs)]


def _picture(job: Job, reference: str) -> Image.Image:
    return _opened(job.pictures[reference])


def _opened(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError("the picture has too many pixels")
        image.load()
        return image


def _model(job: Job) -> bytes:
    path = job.models[job.task.body["input"]]
    return as_glb(path.read_bytes(), sniff_file(path))
