"""A whole run as JSON, as tables of a terminal and as the tables of ``docs/benchmarks.md``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.bench import BenchFailed
from bench.figures import Figure, text
from bench.goals import GOALS, Judgement, judge

BEGIN = "<!-- figures: made by `make bench DOCS=1` -->"
END = "<!-- end of the figures -->"


@dataclass(frozen=True, slots=True)
class Report:
    """``failed`` names the parts that could not measure, with the reason."""

    environment: Mapping[str, str]
    quick: bool
    parts: Sequence[str]
    figures: Sequence[Figure]
    failed: Mapping[str, str] = field(default_factory=dict[str, str])

    def judgements(self) -> list[Judgement]:
        """Of the goals that belong to the parts of this run."""
        by_name = {figure.name: figure for figure in self.figures}
        found = [judge(goal, by_name) for goal in GOALS if _part(goal.figure) in self.parts]
        return [self._with_reason(judgement) for judgement in found]

    def _with_reason(self, judgement: Judgement) -> Judgement:
        reason = self.failed.get(_part(judgement.goal.figure))
        if reason is None or judgement.verdict != "not measured":
            return judgement
        return Judgement(judgement.goal, "not measured", None, reason)

    # --- JSON -------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        return {
            "environment": dict(self.environment),
            "quick": self.quick,
            "parts": list(self.parts),
            "failed": dict(self.failed),
            "figures": [figure.as_json() for figure in self.figures],
            "goals": [_goal_json(judgement) for judgement in self.judgements()],
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Raises BenchFailed."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            figures = [Figure.from_json(figure) for figure in value["figures"]]
            return cls(value["environment"], value["quick"], value["parts"], figures, value["failed"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchFailed(f"{path} holds no run ({error}); `make bench` writes one") from None


def _part(figure: str) -> str:
    return figure.partition(".")[0]


def _goal_json(judgement: Judgement) -> dict[str, Any]:
    goal, spread = judgement.goal, judgement.spread
    values = None if spread is None else {"median": spread.median, "low": spread.low, "high": spread.high}
    return {
        "goal": goal.title,
        "figure": goal.figure,
        "over": goal.over,
        "wanted": goal.wanted,
        "measured": values,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
    }


# --- tables -----------------------------------------------------------------------------------------------------


def goal_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Goal, wanted, measured (median, lowest and highest round), verdict."""
    return [(item.goal.title, item.goal.wanted, item.measured, item.verdict) for item in report.judgements()]


def figure_rows(figures: Iterable[Figure]) -> list[tuple[str, str, str, str]]:
    """Label, median, lowest and highest round, how."""
    rows: list[tuple[str, str, str, str]] = []
    for figure in figures:
        spread = figure.spread
        if spread is None:
            rows.append((figure.label, "–", "–", figure.missing or "not measured"))
        else:
            span = "–" if len(figure.samples) == 1 else f"{text(spread.low)}–{text(spread.high)}"
            rows.append((figure.label, _value(spread.median, figure.unit), span, figure.how))
    return rows


def _value(value: float, unit: str) -> str:
    return text(value) + (unit if unit.startswith("/") else f" {unit}")


def show(report: Report, console: Console) -> None:
    for name, value in report.environment.items():
        console.print(f"[dim]{name:22}[/] {value}")
    _show_rows(console, ("figure", "median", "rounds", "how"), figure_rows(report.figures))
    if rows := goal_rows(report):
        _show_rows(console, ("goal", "wanted", "measured", "verdict"), rows)
    for part, reason in report.failed.items():
        console.print(f"[red]{part} was not measured:[/] {reason}")


def _show_rows(console: Console, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*head, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)


def markdown(report: Report) -> str:
    """What stands between the marks of the document."""
    parts = [
        "### Environment",
        _markdown_table(("what", "value"), report.environment.items()),
        "### Goals",
        _markdown_table(("goal", "wanted", "measured", "verdict"), goal_rows(report)),
    ]
    for part in report.parts:
        figures = [figure for figure in report.figures if _part(figure.name) == part]
        parts.append(f"### {part.capitalize()}")
        if part in report.failed:
            parts.append(f"Not measured: {report.failed[part]}")
        if figures:
            parts.append(_markdown_table(("figure", "median", "rounds", "how"), figure_rows(figures)))
    return "\n\n".join(parts)


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def write_document(report: Report, path: Path) -> None:
    """Put the figures between the marks. Raises BenchFailed for a quick run and for a document without marks."""
    if report.quick:
        raise BenchFailed("A quick run is no figure for the document; run it without QUICK.")
    document = path.read_text(encoding="utf-8")
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchFailed(f"{path} lacks the lines {BEGIN!r} and {END!r}, between which the figures go")
    path.write_text(f"{before}{BEGIN}\n\n{markdown(report)}\n\n{END}{after}", encoding="utf-8")
