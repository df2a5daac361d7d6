"""``makeit3d demo``: a photo becomes concept images and a 3D model, through the whole gateway on this machine.

The demo is an app: it signs in, uploads to its own Supabase storage, calls the gateway and watches the task. Only the
far ends are stand-ins, and every line says so.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from uuid import uuid4

from rich.console import Console
from rich.panel import Panel

from app.cli_client import GatewayClient, GatewayError
from app.cli_generate import report
from app.cli_sandbox import DemoUser, bearer, publishable_key, sign_in
from app.config import Settings

_PROMPT = "a smooth clay figurine, soft studio light, plain background"
_SKETCH_PROMPT = "a polished wooden toy, plain background"


def run_demo(console: Console, *, photo: Path | None, sketch: Path | None, prompt: str | None, once: bool) -> bool:
    """Start the embedded stack, do the work, print where the results are, and keep serving unless ``once``."""
    from app.embedded.stack import EmbeddedStack

    stack = EmbeddedStack.from_environment()
    with stack.up():
        try:
            good = _work(console, stack.settings, photo=photo, sketch=sketch, prompt=prompt)
        except GatewayError as error:
            console.print(f"[bold red]✗[/] {error}", highlight=False)
            good = False
        if once:
            return good
        console.print(
            Panel(
                f"API (sandbox)  {stack.settings.public_base_url}/docs\n"
                f"Sandbox        {stack.settings.supabase_url.removesuffix('/supabase')}\n"
                "Another one:   makeit3d generate text-to-model -p 'a small wooden boat'\n"
                "Ctrl-C stops everything; the data stays.",
                title="serving",
            )
        )
        stack.wait()
    return good


def _work(console: Console, settings: Settings, *, photo: Path | None, sketch: Path | None, prompt: str | None) -> bool:
    user = sign_in(settings)
    task_id = str(uuid4())
    out = settings.home / "results" / task_id
    console.print(f"[dim]sandbox providers, real gateway; task {task_id}[/]", highlight=False)
    with GatewayClient(settings.public_base_url, bearer(user), console) as client:
        if sketch is not None:
            source = _upload(settings, user, sketch, task_id)
            body = {"task_id": task_id, "input_sketch_asset_url": source, "prompt": prompt or _SKETCH_PROMPT}
            accepted = client.generate("sketch-to-model", body)
            return report(console, client, client.wait(accepted["job_id"], "sketch-to-model (sandbox)"), out)
        with _photo_or_sample(photo) as path:
            source = _upload(settings, user, path, task_id)
        concepts = client.generate(
            "image-to-image",
            {"task_id": task_id, "input_image_asset_url": source, "prompt": prompt or _PROMPT, "n": 2},
        )
        status = client.wait(concepts["job_id"], "photo → concepts (sandbox)")
        if not report(console, client, status, out):
            return False
        model = client.generate(
            "image-to-model", {"task_id": task_id, "input_image_asset_urls": [status["result"]["image_urls"][0]]}
        )
        return report(console, client, client.wait(model["job_id"], "concept → 3D model (sandbox)"), out)


class _photo_or_sample:  # noqa: N801 - used as a context manager
    """The caller's photo, or a CC0 one (a cup of coffee, by Rachel Michetti) that scikit-image ships."""

    def __init__(self, photo: Path | None) -> None:
        self._photo = photo
        self._sample = resources.as_file(resources.files("skimage.data") / "coffee.png")

    def __enter__(self) -> Path:
        return self._photo if self._photo is not None else self._sample.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._photo is None:
            self._sample.__exit__(None, None, None)


def copy_samples(directory: Path) -> list[Path]:
    """``photo.png`` and ``back.png`` (coffee and a cat, CC0) and ``sketch.png`` (a horse's outline, CC0)."""
    directory.mkdir(parents=True, exist_ok=True)
    copied: list[Path] = []
    for name, target in (("coffee.png", "photo.png"), ("chelsea.png", "back.png"), ("horse.png", "sketch.png")):
        with resources.as_file(resources.files("skimage.data") / name) as source:
            copied.append(Path(shutil.copy(source, directory / target)))
    return copied


def _upload(settings: Settings, user: DemoUser, path: Path, task_id: str) -> str:
    """What an app does: put the file under its own folder of its own bucket."""
    from supabase import create_client
    from supabase.lib.client_options import SyncClientOptions

    key = publishable_key(settings)
    client = create_client(
        settings.supabase_url, key, options=SyncClientOptions(headers={"Authorization": f"Bearer {user.token}"})
    )
    bucket = client.storage.from_(settings.input_bucket_names[0])
    name = f"{user.id}/{task_id}{path.suffix.lower() or '.png'}"
    kind = {".png": "image/png", ".webp": "image/webp"}.get(path.suffix.lower(), "image/jpeg")
    bucket.upload(name, path, {"content-type": kind})
    return f"{settings.supabase_url}/storage/v1/object/authenticated/{settings.input_bucket_names[0]}/{name}"
