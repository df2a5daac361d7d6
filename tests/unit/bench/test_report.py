"""A run as JSON and as the tables of the document."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.bench import BenchFailed
from bench.figures import Figure
from bench.goals import GOALS
from bench.report import BEGIN, END, Report, figure_rows, goal_rows, markdown, write_document

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md"


def report(*, quick: bool = False) -> Report:
    figures = [
        Figure("polls.hot", "poll, hot", "/s", (400.0, 500.0, 450.0), "p50 2 ms"),
        Figure("polls.framework", "framework's constant", "/s", (4000.0, 5000.0, 4500.0)),
        Figure("drain.no_op", "claim | finish", "/s", (100.0,)),
        Figure("drain.celery", "Celery", "/s", missing="not measured: no network"),
    ]
    failed = {"latency": "the gateway did not start"}
    return Report({"machine": "2 cores"}, quick, ["polls", "drain", "latency"], figures, failed)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.json"
    report().write(path)
    read = Report.read(path)
    assert read == report()
    assert read.judgements() == report().judgements()


@pytest.mark.parametrize("content", [None, "", "{}", '{"environment": {}, "figures": 1}'])
def test_what_is_no_run_is_said(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BenchFailed, match="holds no run"):
        Report.read(path)


def test_goals_of_parts_that_did_not_run_are_not_shown() -> None:
    titles = {goal.title for goal in GOALS if goal.figure.partition(".")[0] in ("polls", "drain", "latency")}
    assert {row[0] for row in goal_rows(report())} == titles


def test_a_part_that_failed_tells_it_at_its_goals() -> None:
    rows = {row[0]: row for row in goal_rows(report())}
    assert rows["start latency p50"][2:] == ("the gateway did not start", "not measured")
    assert rows["hot poll to the framework's constant"][2:] == ("0.10 × (0.10–0.10)", "missed")


def test_a_figure_shows_the_span_of_its_rounds() -> None:
    rows = figure_rows(report().figures)
    assert rows[0] == ("poll, hot", "450/s", "400–500", "p50 2 ms")
    assert rows[2][2] == "–"
    assert rows[3] == ("Celery", "–", "–", "not measured: no network")


def test_the_figures_replace_those_of_before(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text(f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nEnd.\n", encoding="utf-8")
    write_document(report(), path)
    write_document(report(), path)
    assert path.read_text(encoding="utf-8") == f"# Title\n\n{BEGIN}\n\n{markdown(report())}\n\n{END}\n\nEnd.\n"
    assert r"| claim \| finish |" in path.read_text(encoding="utf-8")


def test_a_quick_run_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    with pytest.raises(BenchFailed, match="quick"):
        write_document(report(quick=True), path)


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text("# Title\n", encoding="utf-8")
    with pytest.raises(BenchFailed, match="lacks the lines"):
        write_document(report(), path)
    assert path.read_text(encoding="utf-8") == "# Title\n"


def test_the_document_shows_every_goal_as_it_is_wanted_now() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for goal in GOALS:
        assert f"| {goal.title} | {goal.wanted} |" in text
