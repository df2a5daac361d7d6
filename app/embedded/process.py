"""Child processes that end with their parent, as an ordinary user when the parent is root."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
NOBODY = 65534


class ServerFailed(Exception):
    """A server did not start. The message holds the end of its log."""


@dataclass
class Child:
    """One child process: what to run, as whom, and how it is asked to stop."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 20.0
    unprivileged: bool = False  # servers that refuse to run as root
    cwd: str = "/"
    _process: subprocess.Popen[bytes] | None = None
    _asked: bool = False

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C in a terminal reaches only the supervisor.

        Call from the main thread: the death signal is tied to the thread that forks.
        """
        self._asked = False
        before_exec = _dies_with_parent(self.stop_signal)
        drop = self.unprivileged and os.geteuid() == 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.environment),
                cwd=self.cwd,
                start_new_session=True,
                preexec_fn=before_exec,  # noqa: PLW1509 - the only place where a death signal can be set
                user=NOBODY if drop else None,
                group=NOBODY if drop else None,
                extra_groups=[] if drop else None,
            )

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def exit_code(self) -> int | None:
        """Its exit status, or None while it runs (or was never started)."""
        return None if self._process is None else self._process.poll()

    def wait_ready(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Return when ``ready`` says so. Raises ServerFailed when the child ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.exit_code() is not None:
                raise ServerFailed(f"{self.name} ended with status {self.exit_code()}.\n{self.log_end()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} is not ready after {seconds:.0f} s.\n{self.log_end()}")
            time.sleep(0.02)

    def ask_to_stop(self) -> None:
        """Send the stop signal, once, and return."""
        if self._process is not None and self._process.poll() is None and not self._asked:
            self._asked = True
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self.stop_signal)

    def stop(self) -> None:
        """Ask it to end, wait, and kill what does not."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.ask_to_stop()
        try:
            process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_end(self, lines: int = 15) -> str:
        """The last lines of its log, for a message to a person."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _dies_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before it becomes the program: the kernel is to signal it when its parent's thread ends."""
    if sys.platform != "linux":
        return None  # the next start finds and ends what was left behind
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: the child may only call into C
    return lambda: prctl(_PR_SET_PDEATHSIG, int(number))


def command_line(pid: int) -> str:
    """The command line of a running process, or an empty string."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        listing = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return listing.stdout


def end_process(pid: int, stop_signal: signal.Signals, *, seconds: float) -> None:
    """Stop a process that is not our child: a server left behind by a launcher that was killed."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, stop_signal)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
