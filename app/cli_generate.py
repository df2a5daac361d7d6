"""``makeit3d generate``: any task type from the shell. The commands and their options are made from the registry."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.console import Console

from app.cli_client import GatewayClient, GatewayError
from app.config import ClientSettings, Settings
from app.task_types.registry import AnyTaskType, Input, TaskTypes

_TRUE, _FALSE = frozenset({"true", "yes", "on"}), frozenset({"false", "no", "off"})
_SHORT = {"prompt": "-p", "image": "-i"}
_TYPES: Mapping[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the shell asked for. Files are uploaded first; URLs are passed on."""

    task_type: AnyTaskType
    task_id: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])  # by option
    options: tuple[str, ...] = ()
    idempotency_key: str | None = None


def generate_commands(task_types: TaskTypes, console: Console, settings: Callable[[], Settings]) -> typer.Typer:
    """A command per task type. ``settings`` are read where the shell's user has no token of their own."""
    commands = typer.Typer()
    for task_type in task_types:
        commands.command(task_type.name, help=task_type.description)(_command(task_type, console, settings))
    return commands


def _command(task_type: AnyTaskType, console: Console, settings: Callable[[], Settings]) -> Callable[..., None]:
    """A function with a parameter for each option, which is what the command line is made from."""
    fields = _fields(task_type)
    inputs = {item.option: item for item in task_type.inputs}

    def run(**given: Any) -> None:  # noqa: ANN401 - values of the options
        wanted = Wanted(
            task_type,
            given["task_id"] or str(uuid4()),
            {name: given[name] for name in fields if given[name] is not None},
            {option: _several(found) for option in inputs if (found := given[f"input_{option}"])},
            tuple(given["option"] or ()),
            given["idempotency_key"],
        )
        caller = ClientSettings()  # pyright: ignore[reportCallIssue]
        if not run_generate(console, caller, settings, wanted, given["out"]):
            sys.exit(1)

    options = [
        *(_option(name, *_of_schema(schema), short=_SHORT.get(name)) for name, schema in fields.items()),
        *(_input_option(item, task_type) for item in inputs.values()),
        _option("option", list[str], "name=value: face_limit=20000, texture=false, …", short="-o"),
        _option("task_id", str, "Your task id; made for you when absent."),
        _option("idempotency_key", str, "Names this request: a repeat with the same key is not made again."),
        _option("out", Path, "Where results are saved.", default=Path("results")),
    ]
    run.__signature__ = inspect.Signature(options)  # pyright: ignore[reportFunctionMemberAccess]
    return run


def _several(given: str | list[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _fields(task_type: AnyTaskType) -> dict[str, dict[str, Any]]:
    """JSON Schema of the parameters that are no inputs."""
    of_inputs = {name for item in task_type.inputs for name in item.fields}
    properties: dict[str, dict[str, Any]] = task_type.params.model_json_schema(by_alias=False)["properties"]
    return {name: schema for name, schema in properties.items() if name not in of_inputs}


def _of_schema(schema: Mapping[str, Any]) -> tuple[type, str]:
    """Type and help of an option. What is refused is the gateway's to say."""
    alternatives: list[Mapping[str, Any]] = schema.get("anyOf", [schema])
    one = next(found for found in alternatives if found.get("type") != "null")
    told = [schema.get("description", "")]
    if "enum" in one:
        told.append(f"One of {', '.join(str(value) for value in one['enum'])}.")
    if "minimum" in one and "maximum" in one:
        told.append(f"{one['minimum']} to {one['maximum']}.")
    return _TYPES.get(one.get("type", "string"), str), " ".join(filter(None, told))


def _input_option(item: Input, task_type: AnyTaskType) -> inspect.Parameter:
    properties = task_type.params.model_json_schema(by_alias=False)["properties"]
    described = properties[item.fields[0]].get("description", "")
    told = described if item.kind == "draft" else f"File or asset URL. {described}"
    if item.most > 1:
        told = f"Up to {item.most}. {told}"
    kind = list[str] if item.most > 1 else str
    return _option(f"input_{item.option}", kind, told, name=item.option, short=_SHORT.get(item.option))


def _option(
    parameter: str,
    kind: Any,  # noqa: ANN401 - a type
    told: str,
    *,
    name: str | None = None,
    short: str | None = None,
    default: Any = None,  # noqa: ANN401
) -> inspect.Parameter:
    spelled = (name or parameter).replace("_", "-")
    long = f"-{spelled}" if len(spelled) == 1 else f"--{spelled}"
    names = (f"{long}/--no-{spelled}",) if kind is bool else (long, short) if short else (long,)
    return inspect.Parameter(
        parameter,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, typer.Option(*names, help=told)],
    )


def run_generate(
    console: Console, caller: ClientSettings, settings: Callable[[], Settings], wanted: Wanted, out: Path
) -> bool:
    """Send the request, follow it, save the results. False when it did not complete."""
    name = wanted.task_type.name
    try:
        with GatewayClient(caller.url, caller_headers(caller, settings), console) as client:
            accepted = client.generate(name, request_body(client, wanted), idempotency_key=wanted.idempotency_key)
            console.print(f"task [bold]{accepted['task_id']}[/] job {accepted['job_id']}", highlight=False)
            return report(console, client, client.wait(accepted["job_id"], name), out / wanted.task_id)
    except GatewayError as error:
        console.print(f"[bold red]✗[/] {error}", highlight=False)
        return False


def caller_headers(caller: ClientSettings, read: Callable[[], Settings]) -> dict[str, str]:
    """The authorisation of the shell's user: a token of theirs, or the service key and a user id."""
    if caller.token is not None:
        return {"Authorization": f"Bearer {caller.token.get_secret_value()}"}
    settings = read()
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


def request_body(client: GatewayClient, wanted: Wanted) -> dict[str, Any]:
    """The JSON body of the operation; local files become uploads on the way."""
    body: dict[str, Any] = {"task_id": wanted.task_id, **wanted.params}
    body |= dict(_pair(text) for text in wanted.options)
    for item in wanted.task_type.inputs:
        given = wanted.inputs.get(item.option, ())
        if item.upload_as is not None:
            given = tuple(_url(client, value, wanted.task_id, item.upload_as) for value in given)
        if given:
            body[item.fields[0]] = list(given) if item.most > 1 else given[0]
    return body


def report(console: Console, client: GatewayClient, status: Mapping[str, Any], out: Path) -> bool:
    """Save and name what was made, or say why nothing was."""
    if status["status"] != "complete":
        error = status.get("error") or {}
        console.print(f"[bold red]✗[/] {status['status']}: {error.get('code')} {error.get('message')}", highlight=False)
        return False
    result = status["result"]
    made = [[links] if isinstance(links, str) else links or [] for links in result.values()]
    for path in client.save([url for urls in made for url in urls], out):
        console.print(f"[bold green]✓[/] {path}", highlight=False, soft_wrap=True)
    return True


def _url(client: GatewayClient, value: str, task_id: str, kind: str) -> str:
    if value.startswith(("http://", "https://")):
        return value
    path = Path(value)
    if not path.is_file():
        raise GatewayError(f"{value} is neither a file nor a URL.")
    return client.upload(path, task_id=task_id, kind=kind)


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise GatewayError(f"--option takes name=value, not {text!r}.")
    if value.lower() in _TRUE | _FALSE:
        return name, value.lower() in _TRUE
    return name, int(value) if value.lstrip("-").isdigit() else value
