"""Where embedded servers keep data and sockets. After a root start they run unprivileged and must still reach them."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from app.embedded.process import ServerFailed, server_user

_SOCKET_DIRECTORY_BYTES = 88  # sun_path has 104 on macOS; Postgres appends 14; rounded down
_SHARED = Path("/var/lib")  # for a root start whose home nobody else can walk to


def socket_directory(home: Path) -> Path:
    """A private directory (mode 0700) that is short enough for the sockets of this home.

    ``run`` in the home, or one under the temp directory where the home is deep, closed, or on a file system
    without sockets. Raises ServerFailed.
    """
    home.mkdir(parents=True, exist_ok=True)
    name = f"makeit3d-{os.geteuid()}-{_digest(home)}"
    for directory in (home.resolve() / "run", Path(tempfile.gettempdir()) / name, Path("/tmp") / name):  # noqa: S108
        if len(os.fsencode(directory)) > _SOCKET_DIRECTORY_BYTES or not reachable(directory.parent):
            continue
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give(directory)
        directory.chmod(0o700)
        if _takes_sockets(directory):
            return directory
    raise ServerFailed(f"No directory for the sockets of {home}: set MAKEIT3D_HOME to a short path on a local disk.")


def data_directory(home: Path, name: str) -> Path:
    """A directory (mode 0700) for a server's data. Raises ServerFailed."""
    home.mkdir(parents=True, exist_ok=True)
    directory = server_home(home) / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _give(directory)
    return directory


def readable_copy(tree: Path, program: str, home: Path) -> Path:
    """``tree`` itself, or a copy from which an unprivileged server can run ``program`` (a path inside)."""
    if reachable(tree / program):
        return tree
    status = (tree / program).stat()
    digest = hashlib.sha256(f"{tree}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:12]
    base = server_home(home)
    target = base / f"{tree.name}-{digest}"
    if target.exists():
        return target
    for outdated in base.glob(f"{tree.name}-*"):
        shutil.rmtree(outdated)
    incoming = Path(shutil.copytree(tree, base / f"{tree.name}-incoming", symlinks=True))
    for path in (incoming, *incoming.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(stat.S_IMODE(mode) | (0o555 if mode & stat.S_IXUSR else 0o444))
    return incoming.rename(target)


def reachable(path: Path) -> bool:
    """Whether an unprivileged server may walk to the path (and run it, if it is a program)."""
    if os.geteuid() != 0:
        return True
    path = path.resolve()
    return all(not entry.exists() or entry.stat().st_mode & stat.S_IXOTH for entry in (path, *path.parents))


def server_home(home: Path) -> Path:
    """The home itself, or, where it is closed to the servers' user, a directory that a file in it names."""
    home = home.resolve()
    if reachable(home):
        return home
    note = home / "elsewhere"  # not a name made from the path: who deletes a home starts anew
    if not note.exists():
        note.write_text(f"{_SHARED / f'makeit3d-{secrets.token_hex(6)}'}\n", encoding="ascii")
    base = Path(note.read_text(encoding="ascii").strip())
    base.mkdir(mode=0o755, parents=True, exist_ok=True)
    base.chmod(0o755)
    return base


def _digest(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]


def _give(directory: Path) -> None:
    """The directory belongs to the servers' user from now on; it must not be somebody else's before."""
    status = directory.lstat()
    user, group = server_user() if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (os.geteuid(), user):
        raise ServerFailed(
            f"{directory} belongs to user {status.st_uid}: start as that user, or set MAKEIT3D_HOME to another."
        )
    if status.st_uid == user:
        return
    try:
        os.chown(directory, user, group, follow_symlinks=False)
    except OSError as error:
        raise ServerFailed(
            f"{directory} can not be given to the servers' user ({error.strerror}), and Postgres refuses "
            "to run as root: set MAKEIT3D_HOME to a directory on a local disk, or start as an ordinary user."
        ) from None


def _takes_sockets(directory: Path) -> bool:
    """Some shared and mounted directories do not."""
    path = directory / "probe"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True
