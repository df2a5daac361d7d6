"""Starts processes in order, watches over them, and stops them in reverse: one supervisor per home directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from rich.console import Console

from app.embedded.process import ServerFailed, end_process, how_it_ended, identity
from app.errors import ConfigurationError

_LOOK_SECONDS = 0.2
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS = 60.0  # after which a process is started again with the shortest pause


class Service(Protocol):
    """What can be supervised: ``process.Child`` and ``process.Server``."""

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def stop_signal(self) -> signal.Signals: ...
    @property
    def last_signal(self) -> signal.Signals: ...
    def launch(self) -> None: ...
    def wait_ready(self) -> None: ...
    def exit_code(self) -> int | None: ...
    def ask_to_stop(self) -> None: ...
    def stop(self) -> None: ...
    def hurry(self) -> None: ...


class Supervisor:
    """The processes of one home. Everything happens in the main thread, to which their death signals are tied."""

    def __init__(self, home: Path, console: Console) -> None:
        self._home = home
        self._console = console
        self._groups: list[tuple[Service, ...]] = []
        self._launched: dict[str, dict[str, Any]] = {}
        self._restarts: dict[str, list[float]] = {}
        self._due: dict[str, float] = {}
        self._launching = False
        self._asked = False
        self._stopping = False

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Hold the home; stop everything afterwards. INT, TERM or HUP raise KeyboardInterrupt in the body; another one
        while things stop ends them at once.

        Raises ConfigurationError when the home can not be used or another supervisor holds it.
        """
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN  # nohup
        }
        try:
            with self._locked():
                self._end_leftovers()
                try:
                    yield
                finally:
                    self._stop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def start(self, *services: Service) -> None:
        """Launch these together and wait until all are ready; they are also stopped together.

        Raises ServerFailed with the end of the log of the one that failed.
        """
        self._groups.append(services)  # first, so that all are stopped whatever happens here
        for service in services:
            self.say(f"starting {service.name}")
            self._launch(service)
        for service in services:
            service.wait_ready()

    def watch(self) -> None:
        """Until a signal: what ends unexpectedly is started again, with growing pauses."""
        with contextlib.suppress(KeyboardInterrupt):
            while not self._stopping:  # asked, too: Python drops an exception that a signal raises in a finalizer
                for group in self._groups:
                    for service in group:
                        self._tend(service)
                time.sleep(_LOOK_SECONDS)

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError, SystemExit):  # a terminal that went away is no reason to leave processes
            self._console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    # --- starting -----------------------------------------------------------------------------------------------------

    def _launch(self, service: Service) -> None:
        self._launching = True  # a signal now would lose a process that exists already and is not noted yet
        try:
            service.launch()
            if service.pid is not None:
                self._launched[service.name] = {
                    "pid": service.pid,
                    "began": identity(service.pid),
                    "stop_signal": int(service.stop_signal),
                    "last_signal": int(service.last_signal),
                }
                write(self._record, json.dumps(self._launched))
        finally:
            self._launching = False
        if self._asked or self._stopping:
            self._interrupt()

    def _tend(self, service: Service) -> None:
        status = service.exit_code()
        if status is None:
            return
        now = time.monotonic()
        due = self._due.get(service.name)
        if due is None:
            self._put_off(service, how_it_ended(status))
        elif due <= now:
            del self._due[service.name]
            try:
                self._launch(service)
            except (ServerFailed, OSError) as error:
                self._put_off(service, f"did not start: {error}")

    def _put_off(self, service: Service, what: str) -> None:
        now = time.monotonic()
        recent = [moment for moment in self._restarts.get(service.name, []) if now - moment < _STEADY_SECONDS]
        pause = _PAUSES[min(len(recent), len(_PAUSES) - 1)]
        self._restarts[service.name] = [*recent, now]
        self._due[service.name] = now + pause
        self.say(f"{service.name} {what} (log: {service.log}); starting it again in {pause:g} s")

    # --- stopping -----------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stopping:
            for group in self._groups:
                for service in group:
                    service.hurry()
        elif self._launching:
            self._asked = True
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        self._stopping = True
        raise KeyboardInterrupt

    def _stop(self) -> None:
        self._stopping = True
        if self._groups:
            self.say("stopping; running work is finished first, Ctrl-C again ends it at once")
        for group in reversed(self._groups):
            for service in group:
                service.ask_to_stop()
            for service in reversed(group):
                service.stop()
        self._record.unlink(missing_ok=True)
        self.say("stopped")

    # --- the home -----------------------------------------------------------------------------------------------------

    @property
    def _record(self) -> Path:
        return self._home / "processes.json"

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """The lock goes with this process, however it ends; children do not inherit it."""
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            lock = (self._home / "lock").open("a+", encoding="ascii")
        except OSError as error:
            raise ConfigurationError(
                f"{self._home} can not be used ({error.strerror}): set MAKEIT3D_HOME to a directory of your own."
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise ConfigurationError(
                    f"{self._home} is in use by process {lock.read().strip() or '(starting)'}. Stop that one, or set "
                    "MAKEIT3D_HOME, BFF_API_PORT and SANDBOX_PORT to others for a second one."
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def _end_leftovers(self) -> None:
        """Processes of a supervisor that was killed, where they did not notice (only Linux has a death signal)."""
        try:
            left: dict[str, dict[str, Any]] = json.loads(self._record.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return
        for name, entry in reversed(left.items()):
            pid = int(entry["pid"])
            if entry["began"] and identity(pid) == entry["began"]:
                self.say(f"ending {name} (process {pid}), left behind by a start that was killed")
                end_process(pid, signal.Signals(entry["stop_signal"]), last_signal=signal.Signals(entry["last_signal"]))
        self._record.unlink()


def check_port(setting: str, host: str, port: int) -> None:
    """Raises ConfigurationError naming the setting when something listens on the port already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = f"Port {port} is in use by another program. Stop that one, or set {setting} to another port."
    with socket.socket(family) as probe:  # macOS lets a bind below pass beside a listener on all addresses
        probe.settimeout(1)
        if probe.connect_ex((local_address(host), port)) == 0:
            raise ConfigurationError(taken)
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"{taken} ({host}: {error.strerror})") from None


def local_address(host: str) -> str:
    """The address under which this machine reaches a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def write(path: Path, text: str) -> None:
    """In one step, so that a crash leaves the old or the new."""
    beside = path.with_name(path.name + ".new")
    beside.touch(mode=0o600)
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
