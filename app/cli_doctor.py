"""``makeit3d doctor``: prints what is wrong and what to do about it."""

from __future__ import annotations

import json
import time
from collections import Counter

from rich.console import Console

from app.observability import configure_logging
from app.registry import Registry
from app.services.doctor.examination import Examined, examine
from app.services.doctor.findings import Finding, Severity
from app.services.doctor.rounds import read_settings

_MARKS = {Severity.ERROR: "[bold red]✗[/]", Severity.WARNING: "[bold yellow]![/]"}
_WIDTH = 9  # of the names of most groups


async def run_doctor(console: Console, *, as_json: bool, patience_seconds: float, registry: Registry) -> bool:
    """Run every check and print the findings, each group as it ends; False when one of them is an error."""
    begun = time.monotonic()
    done: list[Examined] = []
    settings = read_settings(registry.providers)
    if isinstance(settings, Examined):
        done.append(settings)
        if not as_json:
            _print(console, settings)
    else:
        configure_logging(settings.model_copy(update={"log_level": "ERROR"}))  # findings say it better
        groups = registry.doctor_groups
        waiting = {group.name for group in groups}
        watched = Console(stderr=True) if as_json else console  # a document stays alone
        with watched.status("", spinner="dots") as status:
            status.update(_still(waiting))
            async for examined in examine(registry.check_context(settings), groups, patience_seconds=patience_seconds):
                done.append(examined)
                waiting.discard(examined.group)
                status.update(_still(waiting))
                if not as_json:
                    _print(console, examined)
    counts = Counter(finding.entry.severity for examined in done for finding in examined.findings)
    if as_json:
        console.out(json.dumps(_document(done, counts, time.monotonic() - begun)), highlight=False)
    else:
        console.print(_last_line(counts, time.monotonic() - begun), highlight=False)
    return not counts[Severity.ERROR]


def _still(waiting: set[str]) -> str:
    return f"[dim]looking at {', '.join(sorted(waiting))} …[/]"


def _print(console: Console, examined: Examined) -> None:
    if not examined.findings:
        mark = "[dim]–[/]" if examined.skipped else "[green]✓[/]"
        said = "needs a migrated database" if examined.skipped else " · ".join(examined.facts)
        console.print(f"{mark} {examined.group:{_WIDTH}}  [dim]{said}[/]", highlight=False, soft_wrap=True)
    for finding in examined.findings:
        _print_finding(console, examined.group, finding)


def _print_finding(console: Console, group: str, finding: Finding) -> None:
    entry = finding.entry
    console.print(
        f"{_MARKS[entry.severity]} {group:{_WIDTH}}  [bold]{entry.code}[/]  {entry.meaning}",
        highlight=False,
        soft_wrap=True,
    )
    indent = " " * (_WIDTH + 4)
    console.print(f"{indent}{finding.seen}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{indent}[bold]→[/] {entry.remedy}", highlight=False, soft_wrap=True)


def _last_line(counts: Counter[Severity], seconds: float) -> str:
    errors, warnings = counts[Severity.ERROR], counts[Severity.WARNING]
    colour = "bold red" if errors else "bold yellow" if warnings else "bold green"
    return f"[{colour}]doctor: {_count(errors, 'error')}, {_count(warnings, 'warning')}[/] in {seconds:.1f} s"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _document(done: list[Examined], counts: Counter[Severity], seconds: float) -> dict[str, object]:
    return {
        "errors": counts[Severity.ERROR],
        "warnings": counts[Severity.WARNING],
        "seconds": round(seconds, 3),
        "findings": [
            {
                "group": examined.group,
                "code": finding.entry.code,
                "severity": finding.entry.severity,
                "meaning": finding.entry.meaning,
                "seen": finding.seen,
                "do": finding.entry.remedy,
            }
            for examined in done
            for finding in examined.findings
        ],
        "facts": {examined.group: list(examined.facts) for examined in done},
    }
