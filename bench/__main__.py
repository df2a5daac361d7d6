"""``make bench``: the figures of the whole gateway, each beside its references, and how they stand to the goals.

Everything runs on this machine: gateway, embedded servers, stand-ins and the load itself share its cores.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console

from bench.bench import Bench, BenchFailed
from bench.figures import Figure
from bench.machine import environment
from bench.parts import PARTS
from bench.report import Report, show, write_document

_REPOSITORY = Path(__file__).resolve().parents[1]
_DOCUMENT = _REPOSITORY / "docs" / "benchmarks.md"
_JSON = _REPOSITORY / ".makeit3d" / "bench.json"


def main() -> int:
    """The exit status: 1 when a part could not measure. A goal that is missed is a figure, not a failure."""
    options = _arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    try:
        report = Report.read(options.read) if options.read is not None else _run(options, console)
        show(report, console)
        if options.read is None:
            report.write(options.json)
            console.print(f"\n[dim]every sample: {options.json}[/]")
        if options.write_docs:
            if set(report.parts) != set(PARTS):
                raise BenchFailed("The document shows one run of all parts; run it without naming parts.")
            write_document(report, _DOCUMENT)
            console.print(f"[dim]written: {_DOCUMENT}[/]")
    except BenchFailed as error:
        console.print(f"[red]{error}[/]")
        return 1
    return 1 if report.failed else 0


def _run(options: argparse.Namespace, console: Console) -> Report:
    names: list[str] = options.parts or list(PARTS)
    began = time.monotonic()
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    found = environment(options.note)
    with console.status("") as status:

        def say(message: str) -> None:
            spent = f"{time.monotonic() - began:4.0f} s"
            if console.is_terminal:
                status.update(f"{spent}  {message}")
            else:
                console.print(f"{spent}  {message}")

        bench = Bench(quick=options.quick, rounds=options.rounds or (2 if options.quick else 5), say=say)
        for name in names:
            try:
                figures += PARTS[name](bench)
            except KeyboardInterrupt:
                failed |= dict.fromkeys(names[names.index(name) :], "stopped before it was measured")
                break
            except BenchFailed as error:
                failed[name] = str(error)
            except Exception as error:  # noqa: BLE001 - the other parts are still worth measuring
                traceback.print_exc()
                failed[name] = f"{type(error).__name__}: {error}"
    return Report(found, options.quick, names, figures, failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rounds, small queues")
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="5 by default, 2 in a quick run")
    parser.add_argument("--json", type=Path, default=_JSON, metavar="PATH", help="where every sample goes")
    parser.add_argument("--read", type=Path, metavar="PATH", help="show a run of before instead of measuring")
    parser.add_argument("--write-docs", action="store_true", help="put the run's tables into docs/benchmarks.md")
    parser.add_argument("--note", default="", help="what else a reader should know of the machine")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
