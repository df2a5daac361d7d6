"""The command line, ``makeit3d``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from app.cli_program import Program
from app.embedded.process import ServerFailed
from app.errors import AppError

if TYPE_CHECKING:
    from fastapi import FastAPI

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="MakeIt3D: paid AI media work, paid once, never lost."
)
console = Console()

Photo = Annotated[
    Path | None, typer.Option(help="A photo of your own (png, jpeg or webp).", exists=True, dir_okay=False)
]
Sketch = Annotated[Path | None, typer.Option(help="A sketch of your own.", exists=True, dir_okay=False)]


def main(program: Program | None = None) -> None:
    """Entry point, also of a gateway with plugins: a refusal of ours is one line and exit code 1, never a traceback."""
    try:
        app(obj=program)
    except AppError as error:
        fail(error.detail or error.error.title)
    except ServerFailed as error:
        fail(str(error))


def _program(context: Any) -> Program:  # noqa: ANN401 - typer's own copy of a class of click
    return context.find_object(Program) or Program()


def fail(message: str) -> NoReturn:
    console.print(f"[bold red]✗[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


@app.command()
def up(context: typer.Context) -> None:
    """Start everything on this machine and keep serving: embedded servers, sandbox providers."""
    from app.embedded.stack import EmbeddedStack

    program = _program(context)
    EmbeddedStack.from_environment(program.providers, module=program.module).run_forever()


@app.command()
def demo(
    photo: Photo = None,
    sketch: Sketch = None,
    prompt: Annotated[str | None, typer.Option(help="What to make of it.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End after the job; exit 0 only if all is there.")] = False,
) -> None:
    """Take a real photo through concept images to a 3D model, on this machine."""
    from app.cli_demo import run_demo

    if not run_demo(console, photo=photo, sketch=sketch, prompt=prompt, once=once):
        sys.exit(1)


class _TaskTypeCommands(TyperGroup):
    """Made when they are asked for: the registry of task types is heavy, and most commands do without."""

    def _made(self, ctx: Any) -> TyperGroup:  # noqa: ANN401 - typer's own copy of a class of click
        from app.cli_generate import generate_commands

        program = _program(ctx)
        return cast(
            "TyperGroup",
            typer.main.get_command(generate_commands(program.registry.task_types, console, program.settings)),
        )

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        return list(self._made(ctx).commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        return self._made(ctx).commands.get(cmd_name)


app.add_typer(
    typer.Typer(
        cls=_TaskTypeCommands,
        no_args_is_help=True,
        help="Run one task type from the shell, with a progress bar, and save the results.",
    ),
    name="generate",
)


@app.command()
def token(context: typer.Context) -> None:
    """Print an access token of the sandbox's demo user, for curl."""
    from app.cli_client import GatewayError
    from app.cli_sandbox import sign_in

    settings = _program(context).settings()
    if not settings.is_sandbox:
        fail("Only the sandbox has a demo user. Sign in with your app, and use its access token.")
    try:
        user = sign_in(settings)
    except GatewayError as error:
        fail(str(error))
    print(user.token)  # noqa: T201 - for $(…), without a terminal's formatting


@app.command()
def samples(directory: Annotated[Path, typer.Argument(help="Where to put them.")] = Path()) -> None:
    """Copy sample pictures (public domain and CC0, from scikit-image) to try things with."""
    from app.cli_demo import copy_samples

    for path in copy_samples(directory):
        console.print(path, highlight=False, soft_wrap=True)


@app.command()
def api(context: typer.Context) -> None:
    """Serve the HTTP API."""
    from app.cli_start import settings_to_start

    program = _program(context)
    settings = settings_to_start(program.settings())
    import uvicorn  # heavy modules come later: who can not start says so soon

    from app.server import http_protocol

    def create_app() -> FastAPI:
        from app.main import create_app

        return create_app(registry=None if program.make_registry is None else program.registry)

    uvicorn.run(
        create_app,
        factory=True,
        http=http_protocol(settings.connections_per_address),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=20,
    )


@app.command()
def worker(context: typer.Context, lane: Annotated[str, typer.Option(help="priority or normal")] = "normal") -> None:
    """Run a Celery worker for a lane. TERM is a warm shutdown."""
    from app.cli_start import settings_to_start

    match lane:
        case "priority" | "normal":
            program = _program(context)
            settings = settings_to_start(program.settings())
            from app.tasks.worker import run_worker

            run_worker(settings, lane, registry=program.registry)
        case _:
            fail("--lane is priority or normal")


@app.command()
def beat(context: typer.Context) -> None:
    """Ring for a sweep on a schedule. One is enough; two are harmless."""
    from app.cli_start import settings_to_start

    settings = settings_to_start(_program(context).settings(), database=False)
    from app.tasks.beat import run_beat

    run_beat(settings)


@app.command()
def migrate(context: typer.Context) -> None:
    """Apply what the database lacks of app/migrations, and print what only another role may make."""
    from app.cli_start import require_database
    from app.db.migrate import migrate as apply
    from app.db.migrate import policies_to_make

    settings = _program(context).settings()
    require_database(settings, migrated=False)
    dsn = settings.database_url.get_secret_value()
    applied = asyncio.run(apply(dsn))
    for name in applied:
        console.print(f"applied {name}")
    if not applied:
        console.print("The database is up to date.")
    if policies := asyncio.run(policies_to_make(dsn, settings.input_bucket_names)):
        console.print(
            "[bold yellow]![/] Users can not upload to Storage by themselves yet: this role does not own"
            " storage.objects. Everything else is done. Run this once in the SQL editor of the Supabase dashboard:",
            highlight=False,
            soft_wrap=True,
        )
        print("\n".join(policies))  # noqa: T201 - to be copied as it is


@app.command()
def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
    patience: Annotated[float, typer.Option(help="Seconds that each check may take.", min=1)] = 10.0,
) -> None:
    """Look for what is misconfigured, and say what to do; exit 1 on an error, 0 with warnings only. Writes nothing but
    a bucket that it removes at once, by which it learns the project's limit."""
    from app.cli_doctor import run_doctor

    registry = _program(context).registry
    if not asyncio.run(run_doctor(console, as_json=as_json, patience_seconds=patience, registry=registry)):
        sys.exit(1)


@app.command()
def audit(
    context: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its digest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
    days: Annotated[float, typer.Option(help="How far back the providers' records are compared.", min=0)] = 30.0,
    grace: Annotated[
        float, typer.Option(help="Seconds until the second look at what may be false for a moment.", min=0)
    ] = 15.0,
    sandbox_ledger: Annotated[
        str | None, typer.Option(help="Address of a sandbox whose ledger stands for the providers' records.")
    ] = None,
) -> None:
    """Hold rows, events, files and payments against each other; exit 0 only if nothing differs. Writes nothing."""
    from app.cli_audit import AuditOptions, run_audit
    from app.cli_start import require_database

    program = _program(context)
    require_database(program.settings())
    options = AuditOptions(deep=deep, json=as_json, days=days, grace_seconds=grace, sandbox_ledger=sandbox_ledger)
    if not asyncio.run(run_audit(console, options, program.registry)):
        sys.exit(1)


jobs = typer.Typer(no_args_is_help=True, help="What failed, why, what it cost, and how to run it again.")
app.add_typer(jobs, name="jobs")

Since = Annotated[str | None, typer.Option(help="Only what failed in the last 90s, 15m, 24h, 7d …")]
Code = Annotated[str | None, typer.Option(help="Only this error code.")]
OfUser = Annotated[str | None, typer.Option(help="Only of this user (UUID).")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@jobs.command("failed")
def jobs_failed(
    context: typer.Context,
    since: Since = None,
    code: Code = None,
    user: OfUser = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List requests that failed for good and were not retried."""
    from app.cli_jobs import Choice, list_failed
    from app.cli_start import require_database

    program = _program(context)
    require_database(program.settings())
    asyncio.run(list_failed(console, program.registry, Choice(since, code, user, limit), as_json=as_json))


@jobs.command("retry")
def jobs_retry(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(help="Failed jobs, requests or tasks.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that `jobs failed` lists.")] = False,
    since: Since = None,
    code: Code = None,
    user: OfUser = None,
    limit: Limit = 50,
    may_pay_again: Annotated[
        bool, typer.Option("--may-pay-again", help="Also what was or may have been paid, and would be paid once more.")
    ] = False,
) -> None:
    """Run failed requests again, for the same users. Exit code 1 when one was left out."""
    from app.cli_jobs import Choice, retry_failed
    from app.cli_start import require_database

    program = _program(context)
    require_database(program.settings())
    choice = Choice(since, code, user, limit)
    if not asyncio.run(
        retry_failed(console, program.registry, ids or (), choice, everything=everything, may_pay_again=may_pay_again)
    ):
        sys.exit(1)


@jobs.command("show")
def jobs_show(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="A job, request or task.")],
    as_json: AsJson = False,
) -> None:
    """Show what is known of a job: state, paid calls, files, rows, events."""
    from app.cli_jobs import show
    from app.cli_start import require_database

    program = _program(context)
    require_database(program.settings())
    asyncio.run(show(console, program.registry, id_, as_json=as_json))


breaker = typer.Typer(no_args_is_help=True, help="Circuit breakers: which providers take work.")
app.add_typer(breaker, name="breaker")


@breaker.command("list")
def breaker_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the breaker of every provider, and why it is open."""
    from app.cli_breaker import list_breakers
    from app.cli_start import require_database

    program = _program(context)
    require_database(program.settings())
    asyncio.run(list_breakers(console, program.registry, as_json=as_json))


@breaker.command("close")
def breaker_close(
    context: typer.Context, provider: Annotated[str, typer.Argument(help="Its name, as makeit3d breaker shows it.")]
) -> None:
    """Let a provider's jobs go on now, once the key, the credits or the model are mended."""
    from app.cli_breaker import close_breaker
    from app.cli_start import require_database

    program = _program(context)
    require_database(program.settings())
    asyncio.run(close_breaker(console, program.registry, provider))


if __name__ == "__main__":
    main()
