"""Logs: one line per event, nothing secret, nothing forged."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from app.observability import drop_secrets, escape_control_characters

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
SECRETS = (
    f"Authorization: Bearer {JWT}",
    f"token was {JWT}, sorry",
    "key sk-proj-abcdefghijkl used",
    "tsk_1234567890abcdef",
    "sb_secret_abcdef",
    "whsec_0123456789",
    "postgresql://app:hunter2@db.internal:5432/app",
    "GET /assets/1/content?key=abcdefghijkl&x=1",
    "https://x/object/sign/b/k?token=abcdefghijkl",
)
PARTS = (JWT, "abcdefghijkl", "1234567890abcdef", "sb_secret_abcdef", "0123456789", "hunter2")


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_secret_is_hidden_in_any_text(text: str) -> None:
    for event in ({"event": text}, {"event": "x", "deep": {"list": [text, 1]}}, {"exception": f"Traceback\n{text}"}):
        written = json.dumps(drop_secrets(None, "info", event))
        assert not any(part in written for part in PARTS), written
        assert "[hidden]" in written


def test_what_is_named_like_a_secret_is_hidden_whatever_it_is() -> None:
    event: dict[str, Any] = {"event": "x", "headers": {"Authorization": "Basic Zm9v", "apikey": 7}, "password": "p"}
    hidden = drop_secrets(None, "info", event)
    assert hidden == {
        "event": "x",
        "headers": {"Authorization": "[hidden]", "apikey": "[hidden]"},
        "password": "[hidden]",
    }


def test_ordinary_values_stay_as_they_are() -> None:
    event = {"event": "upload_stored", "key": "concepts/task-0001/0.png", "path": "/tasks/task-0001", "size": 3}
    assert drop_secrets(None, "info", event) == event


def test_a_line_of_a_client_can_not_become_an_event() -> None:
    event = {"event": "x\n2026-01-01 [info] forged\x1b[2J\u2028", "exception": "Traceback\nforged"}
    escaped = escape_control_characters(None, "info", event)
    assert escaped["event"] == "x\\n2026-01-01 [info] forged\\x1b[2J\\u2028"
    assert escaped["exception"] == "Traceback\n    forged"


SCRIPT = """
import logging, structlog
from pathlib import Path
from app.observability import configure_logging
from tests.integration.factories import settings_for
configure_logging(settings_for("postgresql://x/y", Path("."), log_format={format!r}))
log = structlog.get_logger("app.test")
log.info("one\\ntwo", path="/a\\nb", key_of="sk-abcdefghijkl")
log.info("x", path="\\x1b[31m\\x85\\x9b2J\\u2028\\u2029\\r[info] forged")
log.debug("not shown")
logging.getLogger("uvicorn.error").warning("from %s", "uvicorn?token=abcdefghijkl")
logging.getLogger("uvicorn.access").info("GET /assets/1/content?key=abcdefghijkl")
logging.getLogger("httpx").info("HTTP Request: GET https://x/?apikey=abcdefghijkl")
try:
    raise ValueError("postgresql://app:hunter2@db/app\\nforged line")
except ValueError:
    log.exception("failed")
    logging.getLogger("celery").exception("failed too")
"""


def logged(format: str) -> str:  # noqa: A002 - the setting's name
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.format(format=format)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert not any(part in done.stderr for part in PARTS)
    return done.stderr


def test_json_logs() -> None:
    events = [json.loads(line) for line in logged("json").splitlines()]
    assert [event["event"] for event in events] == [
        "one\ntwo",
        "x",
        "from uvicorn?token=[hidden]",
        "failed",
        "failed too",
    ]
    assert all({"timestamp", "level", "logger"} <= event.keys() for event in events)
    assert all("ValueError" in event["exception"] for event in events[3:])
    assert events[0]["key_of"] == "[hidden]"


def test_no_character_of_a_client_breaks_a_line_or_moves_a_terminal() -> None:
    for text in (logged("json"), logged("console")):
        assert not any(sign in text for sign in ("\x1b[31m", "\x85", "\x9b", "\u2028", "\u2029", "\r"))
        assert len(text.split("\n")) == len(text.splitlines()) + 1


def test_console_logs() -> None:
    text = logged("console")
    assert "one\\ntwo" in text
    assert "\nforged" not in text
    assert "\n    forged line" in text


def test_work_goes_on_where_nobody_reads_the_log() -> None:
    script = SCRIPT.format(format="json").partition("log.info")[0]
    script += 'import os\nos.close(2)\nlog.info("lost")\nlog.error("lost too")\nprint("done", flush=True)\nos._exit(0)'
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"
