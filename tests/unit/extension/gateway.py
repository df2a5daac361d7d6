"""The command line of a gateway with plugins, and each of its processes: ``python -m tests.unit.extension.gateway``."""

from __future__ import annotations

from app.cli import main
from app.cli_program import Program

from tests.unit.extension.registry import build_registry

PROGRAM = Program(build_registry, "tests.unit.extension.gateway")

if __name__ == "__main__":
    main(PROGRAM)
