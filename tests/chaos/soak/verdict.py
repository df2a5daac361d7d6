"""What the clients were told, held against what is there when everything has come to rest."""

from __future__ import annotations

from tests.chaos.soak.clients import FINAL, Crowd, Told

_WORDS = {"complete": "completed", "failed": "failed", "canceled": "canceled"}
_MAGIC = {"png": b"\x89PNG", "jpg": b"\xff\xd8\xff", "webp": b"RIFF", "glb": b"glTF"}


async def verdict(crowd: Crowd) -> list[str]:
    """Every promise to a client that was not kept."""
    broken = list(crowd.lies)
    for told in crowd.told:
        broken += await _of_one(crowd, told)
    for user, last in crowd.streams.items():
        for told in crowd.told:
            if told.order.user == user:
                word, seen = _WORDS.get(told.status.get("status", "")), last.get(told.job_id)
                if seen != word:
                    broken.append(f"job {told.job_id} is {word}, but its user's event stream said {seen} last")
    return broken


async def _of_one(crowd: Crowd, told: Told) -> list[str]:
    answer = await crowd.http.get(f"/tasks/{told.job_id}/status", headers=crowd.headers(told.order.user), timeout=30)
    if answer.status_code != 200:
        return [f"accepted job {told.job_id} is answered {answer.status_code}"]
    now = answer.json()
    if now["status"] not in FINAL:
        return [f"accepted job {told.job_id} never ended: it is {now['status']}, waiting for {now['waiting_for']}"]
    broken: list[str] = []
    if told.status.get("status") in FINAL and told.status["status"] != now["status"]:
        broken.append(f"job {told.job_id} was told {told.status['status']} and is {now['status']}")
    told.status = now
    match now["status"]:
        case "complete":
            broken += await _files(crowd, told)
        case "failed" if not now["error"] or not now["error"]["code"]:
            broken.append(f"job {told.job_id} failed without a code")
        case "canceled" if not told.canceled:
            broken.append(f"job {told.job_id} was canceled, and nobody asked for it")
        case _:
            pass
    return broken


async def _files(crowd: Crowd, told: Told) -> list[str]:
    result = told.status["result"]
    urls = [url for url in (*result["image_urls"], result["model_url"]) if url]
    broken = [] if urls else [f"job {told.job_id} is complete without a file"]
    for url in urls:
        extension = url.partition("?")[0].rpartition(".")[2]
        answer = await crowd.http.get(url, timeout=60, follow_redirects=True)
        if not answer.is_success or not answer.content.startswith(_MAGIC.get(extension, b"?")):
            broken.append(f"{url} is answered {answer.status_code} with {answer.content[:8]!r}")
    return broken
