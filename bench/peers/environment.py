"""Makes the environment of the other queues: pinned versions with hashes, beside the product's and not in it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.bench import BenchFailed

_HERE = Path(__file__).resolve().parent
LOCK = _HERE / "requirements.lock"
HOME = _HERE.parents[1] / ".venv" / "bench-peers"  # `make clean` removes it with the rest
_SHOWN = ("celery", "procrastinate", "pgqueuer", "psycopg")


@dataclass(frozen=True, slots=True)
class Peers:
    """An installed environment."""

    python: Path

    def drain(self, script: str, *arguments: str | int) -> float:
        """Run a script of this directory; the seconds that its drain took. Raises BenchFailed."""
        command = [str(self.python), str(_HERE / f"{script}.py"), *map(str, arguments)]
        return drain_seconds(command, script)

    def versions(self) -> dict[str, str]:
        code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {_SHOWN!r}}}))"
        done = subprocess.run([str(self.python), "-c", code], capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found


def install() -> Peers:
    """Make the environment where it is not there or its lock has changed. Raises BenchFailed."""
    python = HOME / "bin" / "python"
    stamp = HOME / "installed"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted or not python.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(HOME)])
        options = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
        _run([str(python), "-m", "pip", "install", *options, "--require-hashes", "-r", str(LOCK)])
        stamp.write_text(wanted, encoding="ascii")
    return Peers(python)


def drain_seconds(command: list[str], name: str) -> float:
    """The seconds that a drain in a process of its own prints as its last line. Raises BenchFailed."""
    with tempfile.TemporaryFile("w+") as log:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=log, text=True, check=False, timeout=180, cwd=_HERE.parents[1]
            )
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{name} did not end within 180 s; is the machine overloaded?") from None
        if done.returncode != 0:
            log.seek(0)
            raise BenchFailed(f"{name} ended with {done.returncode}: {log.read().strip()[-600:]}")
    seconds: float = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return seconds


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        raise BenchFailed("the other queues were not installed within 300 s; with a network run it again") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BenchFailed(f"the other queues could not be installed ({last[:200]}); with a network run it again")
