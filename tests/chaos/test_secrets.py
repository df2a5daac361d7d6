"""Secrets stay where they belong. Each one is planted as a value that looks like nothing else, work is done and goes
wrong in many ways, and then every log, row, message and answer is searched for it."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
import redis
from app.domain.broker_url import redis_py_url

from tests.chaos.databases import run_sql
from tests.e2e.gateway import REPOSITORY, STOCK, Gateway, User, gateway_in_new_home, sample, wait_for
from tests.loopback import loopback

pytestmark = pytest.mark.chaos

# none has a form by which a filter could know it
SERVICE_KEY = "plantedServiceKeyq7Zk"
OPENAI_KEY = "plantedOpenAiKeyw8Xj"
TRIPO_KEY = "plantedTripoKeye9Vh"
LINK_TOKEN = "plantedLinkTokenr1Ug"
DATABASE_PASSWORD = "plantedDatabaset2Tf"
REDIS_PASSWORD = "plantedRedisy3Sd"
JWT_SECRET = "plantedJwtSecretu4Ra" * 3
SETTINGS = STOCK | {
    "SANDBOX_SERVICE_KEY": SERVICE_KEY,
    "SANDBOX_OPENAI_API_KEY": OPENAI_KEY,
    "SANDBOX_TRIPO_API_KEY": TRIPO_KEY,
    "BFF_LOG_LEVEL": "DEBUG",
    "BFF_MAX_ATTEMPTS": "2",
}


def spellings(secret: str) -> set[bytes]:
    """The ways in which a secret may be written: plain, in a URL, and inside Base64 wherever it begins."""
    found = {secret.encode(), quote(secret, safe="").encode()}
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + secret.encode())
        found.add(encoded[4 if offset else 0 : -4])
    return found


def holds(text: bytes, secret: str) -> bool:
    return any(spelling in text for spelling in spellings(secret))


@dataclass
class Evidence:
    """What was seen of a gateway, by where."""

    gateway: Gateway
    user: User
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    answers: list[str] = field(default_factory=list[str])

    def see(self, answer: httpx.Response) -> httpx.Response:
        self.answers.append(f"{answer.request.method} {answer.headers} {answer.text}")
        return answer

    def post(self, operation: str, **body: object) -> str:
        sent = {"task_id": str(uuid4()), "prompt": "a fox"} | body
        answer = self.see(self.user.post(f"/generate/{operation}", sent))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def finish(self, job: str) -> str:
        status = self.user.finished(job)
        self.answers.append(str(status))
        return str(status["status"])

    def struck(self, job: str) -> None:
        """Wait until a paid call of the job has failed; what becomes of the job then may take its time."""
        failed = (
            "select 1 from makeit3d.provider_calls where job_id = $1 and state in ('refused', 'unknown', 'settled')"
        )
        wait_for(lambda: run_sql(self.gateway.dsn(), failed, job) or None)
        status = self.see(self.user.http.get(f"/tasks/{job}/status")).json()
        self.see(self.user.http.post(f"/tasks/{status['task_id']}/cancel"))

    def logs(self) -> dict[str, bytes]:
        home = self.gateway.home
        return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*.log")}

    def rows(self) -> dict[str, bytes]:
        """Every row of every table of ours, as text, by table."""
        dsn = self.gateway.dsn()
        tables = run_sql(
            dsn,
            "select format('%I.%I', schemaname, tablename) as name from pg_tables"
            " where schemaname in ('public', 'makeit3d')",
        )
        rows = {
            str(table["name"]): run_sql(dsn, f"select to_jsonb(t)::text as row from {table['name']} t")  # noqa: S608
            for table in tables
        }
        return {name: "\n".join(row["row"] for row in found).encode() for name, found in rows.items()}

    def messages(self) -> bytes:
        url = self.gateway.broker_url()
        with redis.Redis.from_url(redis_py_url(url)) as broker:
            return b"\n".join(key + (broker.dump(key) or b"") for key in broker.scan_iter())  # pyright: ignore


@pytest.fixture(scope="module")
def evidence() -> Generator[Evidence]:
    with gateway_in_new_home(**SETTINGS) as gateway:
        user = gateway.new_user()
        seen = Evidence(gateway, user)
        _work(seen)
        seen.secrets |= {
            "service key": SERVICE_KEY,
            "OpenAI key": OPENAI_KEY,
            "Tripo key": TRIPO_KEY,
            "token of a signed link": LINK_TOKEN,
            "access token": user.token.rpartition(".")[2],
        }
        yield seen


def _work(seen: Evidence) -> None:
    """What goes well, then what goes wrong: providers that send the key back, refused tokens, bad input."""
    user, gateway = seen.user, seen.gateway
    photo = user.put_input(sample("coffee.png"))
    signed = photo.replace("/object/authenticated/", "/object/sign/") + f"?token={LINK_TOKEN}"
    assert seen.finish(seen.post("image-to-image", input_image_asset_url=signed)) == "complete"
    assert seen.finish(seen.post("text-to-model")) == "complete"
    seen.see(user.http.post("/uploads", files={"file": sample("coffee.png").read_bytes()}))
    _provoke(seen)
    for where, operation, key in (
        ("openai", "text-to-image", OPENAI_KEY),
        ("tripo.submit", "text-to-model", TRIPO_KEY),
    ):
        echo = f"Incorrect API key provided: {key}. Authorization: Bearer {key}"
        bodies = (
            (400, {"error": {"message": echo, "type": key, "code": key, "param": key}, "code": 2002, "message": echo}),
            (401, {"error": {"message": echo, "code": key}, "code": key, "message": echo, "suggestion": echo}),
            (500, None),
        )
        for status, body in bodies:
            gateway.fault(
                where,
                "status_before",
                status=status,
                body=body,
                count=None,
                headers={"x-request-id": key, "x-key": key},
            )
            seen.struck(seen.post(operation))
            gateway.clear_faults()


def _provoke(seen: Evidence) -> None:
    """Secrets where they do not belong: the client's mistakes are not ours to keep."""
    http, url, token = seen.user.http, seen.gateway.api_url, seen.user.token
    service = {"Authorization": f"Bearer {SERVICE_KEY}", "X-User-Id": seen.user.id}
    for headers in (
        service,
        {"apikey": SERVICE_KEY, "X-User-Id": seen.user.id},
        {"Authorization": f"Bearer {SERVICE_KEY}"},
        {"Authorization": f"Basic {SERVICE_KEY}"},
        {"Authorization": f"Bearer {token}x"},
        {"apikey": token},
        {"Cookie": f"token={token}"},
    ):
        seen.see(loopback.get(f"{url}/tasks", headers=headers))
        seen.see(loopback.post(f"{url}/generate/text-to-image", headers=headers, content=b"{"))
        seen.see(loopback.get(f"{url}/tasks?apikey={SERVICE_KEY}&token={token}", headers=headers))
    for path in (f"/assets/{uuid4()}/content?key={LINK_TOKEN}", f"/tasks/x/status?token={LINK_TOKEN}"):
        seen.see(http.get(path))
    foreign = f"https://user:{LINK_TOKEN}@elsewhere.example/x.png?token={LINK_TOKEN}"
    body = {"task_id": str(uuid4()), "prompt": "a fox", "input_image_asset_url": foreign}
    assert LINK_TOKEN not in seen.see(seen.user.post("/generate/image-to-image", body)).text


def test_the_search_would_find_them(evidence: Evidence) -> None:
    """A search that finds nothing must have looked."""
    assert holds(b"Bearer " + SERVICE_KEY.encode(), SERVICE_KEY)
    assert all(holds(base64.b64encode(b"x" * n + f"k={TRIPO_KEY}!".encode()), TRIPO_KEY) for n in range(3))
    logs = evidence.logs()
    assert len(logs) >= 5, logs.keys()
    everything = b"".join(logs.values())
    assert b"request_accepted" in everything
    assert evidence.user.id.encode() in everything
    rows = evidence.rows()
    assert all(rows[f"makeit3d.{table}"] for table in ("jobs", "provider_calls", "files", "events"))
    assert rows["public.models"]
    assert rows["makeit3d.provider_calls"].count(b'"error_code": "') >= 4
    assert len(evidence.answers) > 20


def test_no_log_has_a_secret(evidence: Evidence) -> None:
    found = [
        (log, name) for log, text in evidence.logs().items() for name, s in evidence.secrets.items() if holds(text, s)
    ]
    assert found == []


def test_no_row_has_a_secret(evidence: Evidence) -> None:
    found = [
        (at, name) for at, text in evidence.rows().items() for name, s in evidence.secrets.items() if holds(text, s)
    ]
    assert found == []


def test_no_message_has_a_secret(evidence: Evidence) -> None:
    messages = evidence.messages()
    assert [name for name, secret in evidence.secrets.items() if holds(messages, secret)] == []


def test_no_answer_has_a_secret(evidence: Evidence) -> None:
    text = "\n".join(evidence.answers).encode()
    assert [name for name, secret in evidence.secrets.items() if holds(text, secret)] == []


def test_keys_of_content_links_are_in_their_column_and_in_the_links_alone(evidence: Evidence) -> None:
    """A link stands in its owner's rows, events and answers; no log has it, and nothing has a key without its link."""
    keys = run_sql(evidence.gateway.dsn(), "select id, content_key from makeit3d.files where content_key is not null")
    assert len(keys) >= 3
    told = {table: text for table, text in evidence.rows().items() if table != "makeit3d.files"}
    told["answers"] = "\n".join(evidence.answers).encode()
    for row in keys:
        link = f"/assets/{row['id']}/content?key={row['content_key']}".encode()
        told = {place: text.replace(link, b"") for place, text in told.items()}
    places = evidence.logs() | told
    assert [at for row in keys for at, text in places.items() if holds(text, row["content_key"])] == []


def test_files_with_secrets_are_their_owners(evidence: Evidence) -> None:
    for path in evidence.gateway.home.rglob("*.env"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


# --- settings that lead nowhere ---------------------------------------------------------------------------------

PLANTED = (SERVICE_KEY, OPENAI_KEY, TRIPO_KEY, DATABASE_PASSWORD, REDIS_PASSWORD, JWT_SECRET)
BAD: dict[str, dict[str, str]] = {
    "nobody answers": {},
    "a name that does not exist": {
        "DATABASE_URL": f"postgresql://app:{DATABASE_PASSWORD}@database.invalid/db",
        "REDIS_URL": f"redis://:{REDIS_PASSWORD}@broker.invalid:6379/0",
    },
}
COMMANDS = (["beat"], ["doctor"], ["migrate"], ["api"], ["worker"], ["audit"], ["jobs", "failed"])


def environment(home: Path, changes: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "MAKEIT3D_ENVIRONMENT": "sandbox",
        "MAKEIT3D_HOME": str(home),
        "BFF_API_PORT": "1",
        "BFF_LOG_LEVEL": "DEBUG",
        "SUPABASE_URL": "http://127.0.0.1:1/supabase",
        "SUPABASE_SERVICE_KEY": SERVICE_KEY,
        "SUPABASE_JWT_SECRET": JWT_SECRET,
        "DATABASE_URL": f"postgresql://app:{DATABASE_PASSWORD}@127.0.0.1:1/db",
        "DATABASE_LISTEN_URL": f"postgresql://app:{DATABASE_PASSWORD}@127.0.0.1:1/db",
        "REDIS_URL": f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0",
        "OPENAI_API_KEY": OPENAI_KEY,
        "TRIPO_API_KEY": TRIPO_KEY,
        **changes,
    }


def run_all(commands: Sequence[list[str]], home: Path, changes: Mapping[str, str]) -> dict[str, bytes]:
    """What each command says, beat until it tries again: it would do so for ever."""
    env = environment(home, changes)
    said: dict[str, bytes] = {}
    for command in commands:
        log = home / "said"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", *command], env=env, cwd=REPOSITORY, stdout=sink, stderr=sink
            )
        try:
            wait_for(
                lambda process=process, log=log: (
                    process.poll() is not None or b"rying again" in log.read_bytes() or None
                )
            )
        finally:
            process.kill()
            process.wait()
        said[" ".join(command)] = log.read_bytes()
    return said


@pytest.mark.parametrize("name", BAD)
def test_commands_that_fail_do_not_tell_secrets(tmp_path: Path, name: str) -> None:
    said = run_all(COMMANDS if not BAD[name] else COMMANDS[:3], tmp_path, BAD[name])
    assert all(said.values()), said
    assert {command: text.decode() for command, text in said.items() if any(holds(text, s) for s in PLANTED)} == {}
