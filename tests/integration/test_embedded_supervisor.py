"""The supervisor: order, restarts, signals, and one per home."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from app.embedded.process import Child, ServerFailed, identity
from app.embedded.supervisor import Supervisor, check_port
from app.errors import ConfigurationError
from rich.console import Console

from tests.servers import free_port

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a death signal")

# notes its start and its end in a common file, and is ready when it noted the start
WITNESS = """
trap 'echo {name} ends >> {notes}; exit 0' TERM
echo {name} starts >> {notes}
while :; do sleep 0.05; done
"""
DEAF = "trap '' TERM; echo {name} starts >> {notes}; while :; do sleep 0.05; done"

LAUNCHER = """
import sys
from pathlib import Path
from rich.console import Console
from app.embedded.process import Child
from app.embedded.supervisor import Supervisor
home = Path(sys.argv[1])
supervisor = Supervisor(home, Console(stderr=True))
with supervisor.running():
    child = Child(name="sleeper", command=["/bin/sleep", "600"], log=home / "sleeper.log")
    supervisor.start(child)
    print(child.pid, flush=True)
    supervisor.watch()
"""


class Stage:
    """A supervisor in a home, what it said, and what its children noted."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said = io.StringIO()
        self.notes_file = home / "notes"
        self.supervisor = Supervisor(home, Console(file=self.said, width=1000))

    def child(self, name: str, script: str = WITNESS, *, stop_seconds: float = 20) -> Child:
        text = script.format(name=name, notes=self.notes_file)
        return Child(
            name=name,
            command=["/bin/sh", "-c", text],
            log=self.home / f"{name}.log",
            environment={"PATH": "/usr/bin:/bin"},
            ready=lambda: f"{name} starts" in self.notes(),
            ready_seconds=30,
            stop_seconds=stop_seconds,
        )

    def notes(self) -> list[str]:
        return self.notes_file.read_text().splitlines() if self.notes_file.exists() else []


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_and_wait(stage: Stage, child: Child, then: Callable[[], None]) -> None:
    """The body of a supervised block that only a signal ends."""
    stage.supervisor.start(child)
    then()
    time.sleep(60)


@contextmanager
def meanwhile(act: Callable[[], None]) -> Generator[None]:
    """``act`` in another thread; afterwards this process gets TERM, whether it went well or not."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - raised again below
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


def test_starts_in_order_and_stops_in_reverse(stage: Stage) -> None:
    with stage.supervisor.running():
        stage.supervisor.start(stage.child("database"))
        stage.supervisor.start(stage.child("worker"))
        stage.supervisor.start(stage.child("api"))
        assert len(json.loads((stage.home / "processes.json").read_text())) == 3
    starts = ["database starts", "worker starts", "api starts"]
    assert stage.notes() == [*starts, "api ends", "worker ends", "database ends"]
    assert not (stage.home / "processes.json").exists()
    assert stage.said.getvalue().splitlines()[0] == "starting database"


def test_what_started_is_stopped_when_a_later_one_fails(stage: Stage) -> None:
    services = (stage.child("database"), stage.child("broken", "echo no such luck; exit 3"))
    with pytest.raises(ServerFailed, match=r"(?s)broken ended with status 3.*no such luck"), stage.supervisor.running():
        stage.supervisor.start(*services)
    assert stage.notes() == ["database starts", "database ends"]


def test_what_dies_is_started_again_with_growing_pauses(stage: Stage) -> None:
    steady, frail = stage.child("steady"), stage.child("frail", "echo {name} starts >> {notes}; exit 3")
    frail.ready = None

    with stage.supervisor.running():
        stage.supervisor.start(steady, frail)
        with meanwhile(lambda: until(lambda: stage.notes().count("frail starts") >= 3)):
            stage.supervisor.watch()
    said = [line for line in stage.said.getvalue().splitlines() if line.startswith("frail")]
    assert "frail ended with status 3" in said[0]
    assert [line.partition("again in ")[2] for line in said[:2]] == ["0.5 s", "1 s"]
    assert stage.notes().count("steady starts") == 1


def test_a_killed_process_is_named_by_its_signal_and_comes_back(stage: Stage) -> None:
    child = stage.child("worker")

    def act() -> None:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        until(lambda: stage.notes().count("worker starts") == 2)

    with stage.supervisor.running():
        stage.supervisor.start(child)
        with meanwhile(act):
            stage.supervisor.watch()
    assert "worker was ended by SIGKILL" in stage.said.getvalue()
    assert stage.notes()[-1] == "worker ends"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_the_body(stage: Stage, number: signal.Signals) -> None:
    outside = signal.getsignal(number)
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, usual)  # under nohup the tests themselves ignore SIGHUP, and so would the supervisor
    try:
        with pytest.raises(KeyboardInterrupt), stage.supervisor.running():
            start_and_wait(stage, stage.child("worker"), lambda: os.kill(os.getpid(), number))
        assert stage.notes() == ["worker starts", "worker ends"]
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, outside)


def test_a_second_signal_ends_at_once_what_does_not_stop(stage: Stage) -> None:
    deaf = stage.child("deaf", DEAF, stop_seconds=600)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: "stopping" in stage.said.getvalue())
        os.kill(os.getpid(), signal.SIGTERM)

    impatient = threading.Thread(target=twice)
    with suppress(KeyboardInterrupt), stage.supervisor.running():
        stage.supervisor.start(deaf)
        impatient.start()
        stage.supervisor.watch()
    impatient.join()
    assert deaf.exit_code() == -signal.SIGKILL


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python tells what it drops
def test_a_signal_that_comes_in_a_finalizer_stops_everything(stage: Stage) -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    with stage.supervisor.running():
        stage.supervisor.start(stage.child("worker"))
        gone = Finalized()
        del gone
        stage.supervisor.watch()
    assert stage.notes() == ["worker starts", "worker ends"]


def test_what_does_not_stop_in_time_is_ended(stage: Stage) -> None:
    deaf = stage.child("deaf", DEAF, stop_seconds=0.1)
    with stage.supervisor.running():
        stage.supervisor.start(deaf)
    assert deaf.exit_code() == -signal.SIGKILL


def test_one_home_has_one_supervisor(stage: Stage) -> None:
    second = Stage(stage.home)
    with stage.supervisor.running():
        with pytest.raises(ConfigurationError) as refused, second.supervisor.running():
            pass
        assert f"in use by process {os.getpid()}" in str(refused.value.detail)
        assert "MAKEIT3D_HOME" in str(refused.value.detail)
    with second.supervisor.running():
        pass


def test_a_home_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as refused, Stage(tmp_path / "file" / "home").supervisor.running():
        pass
    assert "MAKEIT3D_HOME" in str(refused.value.detail)


def test_leftovers_of_a_killed_supervisor_are_ended_and_strangers_are_not(stage: Stage) -> None:
    left = subprocess.Popen(["/bin/sleep", "600"])
    stranger = subprocess.Popen(["/bin/sleep", "600"])
    entry = {"stop_signal": int(signal.SIGTERM), "last_signal": int(signal.SIGKILL)}
    record = {
        "api": {**entry, "pid": left.pid, "began": identity(left.pid)},
        "worker": {**entry, "pid": stranger.pid, "began": "another boot/1"},
    }
    (stage.home / "processes.json").write_text(json.dumps(record))
    try:
        with stage.supervisor.running():
            assert left.wait(10) == -signal.SIGTERM
            assert stranger.poll() is None
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()
    assert f"ending api (process {left.pid})" in stage.said.getvalue()


@on_linux
def test_children_end_with_a_killed_supervisor(stage: Stage) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(stage.home)], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    with launcher.stdout:
        pid = int(launcher.stdout.readline())
    assert identity(pid)
    launcher.kill()
    launcher.wait()
    until(lambda: not identity(pid))
    with stage.supervisor.running():
        stage.supervisor.start(stage.child("api"))


def test_a_taken_port_names_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(ConfigurationError) as refused:
                check_port("BFF_API_PORT", host, port)
            assert f"Port {port} is in use" in str(refused.value.detail)
            assert "set BFF_API_PORT" in str(refused.value.detail)
    check_port("BFF_API_PORT", "127.0.0.1", free_port())


def test_a_long_log_is_set_aside(stage: Stage) -> None:
    log = stage.home / "worker.log"
    log.write_bytes(b"x" * (9 * 1024 * 1024))
    with stage.supervisor.running():
        stage.supervisor.start(stage.child("worker"))
    assert log.stat().st_size < 1024
    assert log.with_name("worker.log.1").stat().st_size == 9 * 1024 * 1024
