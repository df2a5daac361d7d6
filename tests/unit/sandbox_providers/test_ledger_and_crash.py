"""What is paid stays known, and what runs goes on, when the sandbox is killed."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.loopback import loopback
from tests.servers import free_port
from tests.unit.sandbox_providers.served import ADMIN_KEY, BARE, OPENAI_KEY, Back, fetch, picture, process, tripo_at

IMAGE = "/generation/image-to-model"


def test_tasks_money_files_and_links_survive_sigkill(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    admin = httpx.Client(base_url=f"{url}/admin", headers={"X-Admin-Key": ADMIN_KEY}, trust_env=False, timeout=60)
    back = Back(admin)
    with admin, tripo_at(url) as tripo:
        with process(tmp_path, port, knobs='{"work_seconds": 1.5}') as child:
            token = tripo.upload(picture())
            before = tripo.made(IMAGE, {"input": token, **BARE})
            task_id = tripo.created(IMAGE, {"input": token, "model_seed": 77, **BARE})
            back.arm("openai", "reset_after")
            order = {"model": "gpt-image-2", "prompt": "a ball"}
            headers = {"Authorization": f"Bearer {OPENAI_KEY}"}
            with pytest.raises(httpx.TransportError):
                loopback.post(f"{url}/openai/v1/images/generations", json=order, headers=headers)
            assert tripo.money() == (9960, 20)
            child.send_signal(signal.SIGKILL)
            child.wait()
        with process(tmp_path, port):
            assert fetch(before["output"]["model_url"])[:4] == b"glTF"
            task = tripo.ended(task_id)
            assert (task["status"], task["input"]["model_seed"]) == ("success", 77)
            assert fetch(task["output"]["model_url"])[:4] == b"glTF"
            assert tripo.money() == (9960, 0)
            rows = back.ledger()
            assert [(row["provider"], row["state"]) for row in rows] == [
                ("tripo", "charged"),
                ("tripo", "charged"),
                ("openai", "charged"),
            ]
            tripo.made(IMAGE, {"input": token, **BARE})  # the upload is still there
