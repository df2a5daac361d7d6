"""``makeit3d generate``: any of the six operations from the shell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from app.cli_client import GatewayClient, GatewayError
from app.config import ClientSettings
from app.domain.operations import Operation

_TRUE, _FALSE = frozenset({"true", "yes", "on"}), frozenset({"false", "no", "off"})


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """What the shell asked for. Files are uploaded first; URLs are passed on."""

    operation: str
    task_id: str
    prompt: str | None = None
    style: str | None = None
    images: tuple[str, ...] = ()
    sketch: str | None = None
    draft: str | None = None
    model: str | None = None
    n: int | None = None
    background: str | None = None
    options: tuple[str, ...] = ()
    idempotency_key: str | None = None


def run_generate(console: Console, caller: ClientSettings, wanted: GenerateOptions, out: Path) -> bool:
    """Send the request, follow it, save the results. False when it did not complete."""
    try:
        with GatewayClient(caller.url, caller_headers(caller), console) as client:
            accepted = client.generate(
                wanted.operation, request_body(client, wanted), idempotency_key=wanted.idempotency_key
            )
            console.print(f"task [bold]{accepted['task_id']}[/] job {accepted['job_id']}", highlight=False)
            return report(console, client, client.wait(accepted["job_id"], wanted.operation), out / wanted.task_id)
    except GatewayError as error:
        console.print(f"[bold red]✗[/] {error}", highlight=False)
        return False


def caller_headers(caller: ClientSettings) -> dict[str, str]:
    """The authorisation of the shell's user: a token of theirs, or the service key and a user id."""
    if caller.token is not None:
        return {"Authorization": f"Bearer {caller.token.get_secret_value()}"}
    from app.config import Settings

    settings = Settings.load()
    if settings.is_sandbox and caller.user_id is None:
        from app.cli_sandbox import sandbox_user_headers

        return sandbox_user_headers(settings)
    if caller.user_id is None:
        raise GatewayError(
            "Say who you are: set MAKEIT3D_TOKEN to an access token, or MAKEIT3D_USER_ID to a user's id."
        )
    return {
        "Authorization": f"Bearer {settings.supabase_service_key.get_secret_value()}",
        "X-User-Id": caller.user_id,
    }


def request_body(client: GatewayClient, wanted: GenerateOptions) -> dict[str, Any]:
    """The JSON body of the operation; local files become uploads on the way."""
    body: dict[str, Any] = {"task_id": wanted.task_id}
    for name in ("prompt", "style", "n", "background"):
        value = getattr(wanted, name)
        if value is not None:
            body[name] = value
    body |= dict(_option(text) for text in wanted.options)
    images = [_url(client, image, wanted.task_id, "uploaded_photo") for image in wanted.images]
    if wanted.operation == Operation.IMAGE_TO_IMAGE and images:
        body["input_image_asset_url"] = images[0]
    elif images:
        body["input_image_asset_urls"] = images
    if wanted.sketch is not None:
        body["input_sketch_asset_url"] = _url(client, wanted.sketch, wanted.task_id, "uploaded_sketch")
    if wanted.model is not None:
        body["input_model_asset_url"] = _url(client, wanted.model, wanted.task_id, "uploaded_model")
    if wanted.draft is not None:
        body["tripo_draft_task_id"] = wanted.draft
    return body


def report(console: Console, client: GatewayClient, status: Mapping[str, Any], out: Path) -> bool:
    """Save and name what was made, or say why nothing was."""
    if status["status"] != "complete":
        error = status.get("error") or {}
        console.print(f"[bold red]✗[/] {status['status']}: {error.get('code')} {error.get('message')}", highlight=False)
        return False
    result = status["result"]
    urls = [*result["image_urls"], *([result["model_url"]] if result["model_url"] else [])]
    for path in client.save(urls, out):
        console.print(f"[bold green]✓[/] {path}", highlight=False, soft_wrap=True)
    return True


def _url(client: GatewayClient, value: str, task_id: str, kind: str) -> str:
    if value.startswith(("http://", "https://")):
        return value
    path = Path(value)
    if not path.is_file():
        raise GatewayError(f"{value} is neither a file nor a URL.")
    return client.upload(path, task_id=task_id, kind=kind)


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise GatewayError(f"--option takes name=value, not {text!r}.")
    if value.lower() in _TRUE | _FALSE:
        return name, value.lower() in _TRUE
    return name, int(value) if value.lstrip("-").isdigit() else value
