"""Where embedded servers keep data and sockets, so that an ordinary user can reach them from a root start too."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from app.embedded.process import NOBODY

_SOCKET_DIRECTORY_BYTES = 88  # sun_path minus what Postgres appends


def socket_directory(home: Path) -> Path:
    """A short directory of mode 0700 for the sockets of one home; a deep home gets one under the temp directory."""
    wanted = home.resolve() / "run"
    if len(os.fsencode(str(wanted))) > _SOCKET_DIRECTORY_BYTES or not reachable(home.resolve()):
        digest = hashlib.sha256(os.fsencode(str(home.resolve()))).hexdigest()[:12]
        wanted = Path(tempfile.gettempdir()) / f"makeit3d-{os.geteuid()}-{digest}"
    wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
    if wanted.stat().st_uid not in (os.geteuid(), NOBODY):
        raise PermissionError(f"{wanted} belongs to another user")
    give(wanted)
    return wanted


def data_directory(home: Path, name: str) -> Path:
    """A directory for a server's data. As root under a closed parent it lies where ``nobody`` can reach it."""
    base = home.resolve()
    if not reachable(base):
        digest = hashlib.sha256(os.fsencode(str(base))).hexdigest()[:12]
        base = Path("/var/lib") / f"makeit3d-{digest}"
        base.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory = base / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    give(directory)
    return directory


def readable_copy(tree: Path, home: Path) -> Path:
    """``tree`` itself, or a copy of it that an unprivileged server can execute."""
    if reachable(tree):
        return tree
    digest = hashlib.sha256(os.fsencode(str(tree))).hexdigest()[:12]
    target = data_directory(home, f"{tree.name}-{digest}")
    target.chmod(0o755)
    if not (target / ".complete").exists():
        shutil.copytree(tree, target, symlinks=True, dirs_exist_ok=True)
        (target / ".complete").touch()
    return target


def reachable(path: Path) -> bool:
    """Whether an unprivileged server may walk to the path. Always true for an ordinary user."""
    if os.geteuid() != 0:
        return True
    walk = [path, *path.parents]
    return all(not entry.exists() or entry.stat().st_mode & stat.S_IXOTH for entry in walk[1:])


def give(path: Path) -> None:
    """As root: the directory belongs to the servers' user."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
