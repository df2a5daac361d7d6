"""Child processes that end with their parent, run as an ordinary user when the parent is root."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 8 * 1024 * 1024  # a longer log is set aside at the next start
_LOG_END_BYTES = 16 * 1024
_LAST_WAIT_SECONDS = 5.0


class ServerFailed(Exception):
    """A server did not start, or can not. The message says what to do, or holds the end of its log."""


@cache
def server_user() -> tuple[int, int]:
    """User and group ids for servers that refuse to run as root."""
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return nobody.pw_uid, nobody.pw_gid


@dataclass(kw_only=True)
class Child:
    """One child process: what to run, as whom, when it counts as ready, and how it is asked to stop."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str = "/"
    unprivileged: bool = False
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 20.0
    last_signal: signal.Signals = signal.SIGKILL
    _process: subprocess.Popen[bytes] | None = None
    _asked: bool = False

    def launch(self) -> None:
        """Start it, from the main thread. Raises OSError."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        _set_aside(self.log)
        self._process = spawn(
            self.command,
            log=self.log,
            environment=self.environment,
            cwd=self.cwd,
            death_signal=self.stop_signal,
            user=server_user() if self.unprivileged and os.geteuid() == 0 else None,
        )
        self._asked = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def exit_code(self) -> int | None:
        """Its exit status (negative: the signal), or None while it runs or was never started."""
        return None if self._process is None else self._process.poll()

    def wait_ready(self) -> None:
        """Return when it is ready. Raises ServerFailed when it ends before, or after ``ready_seconds``."""
        deadline = time.monotonic() + self.ready_seconds
        while self.ready is not None and not self.ready():
            if self.exit_code() is not None:
                raise ServerFailed(f"{self.name} {how_it_ended(self.exit_code())}. {self._log_end()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} is not ready after {self.ready_seconds:.0f} s. {self._log_end()}")
            time.sleep(0.02)

    def wait_end(self, seconds: float) -> None:
        """Return when it ended well. Raises ServerFailed when it did not."""
        process = self._process
        if process is None:
            raise ServerFailed(f"{self.name} was not started")
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"{self.name} did not end within {seconds:.0f} s. {self._log_end()}") from None
        if status != 0:
            raise ServerFailed(f"{self.name} {how_it_ended(status)}. {self._log_end()}")

    def ask_to_stop(self) -> None:
        """Send the stop signal, once, and return."""
        if self._process is not None and not self._asked:
            self._asked = True
            self._process.send_signal(self.stop_signal)

    def stop(self) -> None:
        """Ask it to end, wait ``stop_seconds``, and end what does not."""
        process = self._process
        if process is None:
            return
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.stop_seconds)
            return
        process.send_signal(self.last_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WAIT_SECONDS)
            return
        self.kill()

    def hurry(self) -> None:
        """End it now, without waiting, in the hardest way that is safe for its data."""
        if self._process is not None:
            self._process.send_signal(self.last_signal)

    def kill(self) -> None:
        """As a crash would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _log_end(self, lines: int = 15) -> str:
        """The last lines of its log, for a message to a person."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _LOG_END_BYTES))
            text = log.read().decode("utf-8", "replace")
        return "\n".join([f"End of {self.log}:", *text.splitlines()[-lines:]])


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    cwd: str = "/",
    death_signal: signal.Signals = signal.SIGTERM,
    user: tuple[int, int] | None = None,
) -> subprocess.Popen[bytes]:
    """A process in a session of its own, so that Ctrl-C in a terminal does not reach it; ``log`` takes what it prints.

    On Linux it gets ``death_signal`` when this process ends, however that ends. Call from the main thread: the signal
    is tied to the thread that forks. Raises OSError.
    """
    prctl = _prctl()  # looked up before the fork: the child may only call into C
    number, parent = int(death_signal), os.getpid()

    def before_exec() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, number)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,  # a file: a pipe that nobody reads would block the child
            stderr=output,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=before_exec,  # noqa: PLW1509 - runs after the change of user, which clears the death signal
            user=None if user is None else user[0],
            group=None if user is None else user[1],
            extra_groups=None if user is None else [],
        )


class Server(ABC):
    """A server whose child process is made up anew at each launch."""

    def __init__(self, home: Path, name: str) -> None:
        self._home = home
        self._name = name
        self._child: Child | None = None

    @abstractmethod
    def _prepare(self) -> Child:
        """Make ready what the server needs on disk. Raises ServerFailed or OSError."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def log(self) -> Path:
        return self._home / "logs" / f"{self._name}.log"

    @property
    def stop_signal(self) -> signal.Signals:
        return signal.SIGTERM

    @property
    def last_signal(self) -> signal.Signals:
        return signal.SIGKILL

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Launch and wait until it answers. Raises ServerFailed with the end of the log."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Launch from the main thread and return. Raises ServerFailed or OSError."""
        child = self._prepare()
        child.launch()
        self._child = child

    def wait_ready(self) -> None:
        if self._child is not None:
            self._child.wait_ready()

    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.exit_code()

    def ask_to_stop(self) -> None:
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def hurry(self) -> None:
        if self._child is not None:
            self._child.hurry()

    def kill(self) -> None:
        """As a crash would end it."""
        if self._child is not None:
            self._child.kill()


def how_it_ended(status: int | None) -> str:
    """An exit status in words."""
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def identity(pid: int) -> str:
    """When a process began: with the pid it names one process for ever. Empty when it is gone or a zombie."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return ""
        return "" if fields[0] in ("Z", "X") else f"{boot}/{fields[19]}"
    state, _, began = _ps(pid, "stat=", "lstart=").strip().partition(" ")
    return "" if state.startswith("Z") else began.strip()


def command_line(pid: int) -> str:
    """The command line of a running process, or an empty string."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            return ""
    return _ps(pid, "command=")


def end_process(
    pid: int,
    stop_signal: signal.Signals,
    *,
    seconds: float = _LAST_WAIT_SECONDS,
    last_signal: signal.Signals = signal.SIGKILL,
) -> None:
    """End a process that is not our child: one left behind by a launcher that was killed. Raises ServerFailed."""
    began = identity(pid)
    for number, limit in ((stop_signal, seconds), (last_signal, _LAST_WAIT_SECONDS)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise ServerFailed(f"Process {pid} is in the way and belongs to another user: end it first.") from None
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            if identity(pid) != began or not began:
                return
            time.sleep(0.02)
    raise ServerFailed(f"Process {pid} is in the way and does not end.")


def _prctl() -> Callable[[int, int], int] | None:
    return ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _ps(pid: int, *columns: str) -> str:
    wanted = [part for column in columns for part in ("-o", column)]
    return subprocess.run(["ps", "-ww", *wanted, "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def _set_aside(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name(log.name + ".1"))
