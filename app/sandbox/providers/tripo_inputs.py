"""Are the inputs of a create there, the caller's own, and of the right sort? And where do their bytes lie?"""

from __future__ import annotations

import time
from pathlib import Path

from app.sandbox.providers.accounts import Account
from app.sandbox.providers.tripo_files import Files, kind_of
from app.sandbox.providers.tripo_references import VIEWS, Reference, is_task_id, references
from app.sandbox.providers.tripo_refusals import TripoRefusal, bad_parameter, no_task
from app.sandbox.providers.tripo_results import Job
from app.sandbox.providers.tripo_tasks import Task, Tasks

_MODEL_SUFFIX = ".glb"


class Inputs:
    def __init__(self, tasks: Tasks, files: Files, results: Path) -> None:
        self._tasks = tasks
        self._files = files
        self._results = results

    async def check(
        self, kind: str, body: dict[str, object], account: Account, *, token_seconds: float
    ) -> dict[str, str]:
        """Tokens of what the body's URLs answered. Raises TripoRefusal."""
        fetched: dict[str, str] = {}
        named = references(kind, body)
        for reference in named:
            value = reference.value
            if is_task_id(value):
                self._check_task(reference, account)
                continue
            if value.startswith(("http://", "https://")) and value not in fetched:
                fetched[value] = await self._files.fetch(value, account)
            self._check_file(reference, fetched.get(value, value), account, token_seconds)
        if kind == "texture" and not body.get("texture_prompt") and not self._has_picture(named[0], account):
            raise bad_parameter("a model without a source picture needs a texture_prompt")
        return fetched

    def job(self, task: Task) -> Job:
        """The task with the paths of its inputs. Raises ValueError when one has gone."""
        pictures: dict[str, Path] = {}
        models: dict[str, Path] = {}
        views: dict[str, dict[str, Path]] = {}
        for reference in references(task.kind, task.body):
            value = reference.value
            source = self._tasks.one(value) if is_task_id(value) else None
            if source is None:
                (models if reference.what == "model" else pictures)[value] = self._files.path(
                    task.fetched.get(value, value)
                )
            elif reference.what == "views":
                views[value] = {view: self._results / source.output[f"{view}_view_url"] for view in VIEWS}
            else:
                key = "model_url" if reference.what == "model" else "generated_image_url"
                (models if reference.what == "model" else pictures)[value] = self._results / source.output[key]
        return Job(task, pictures, models, views)

    def _check_task(self, reference: Reference, account: Account) -> None:
        task = self._tasks.one(reference.value, account.id)
        if task is None:
            raise no_task()
        if task.status != "success":
            raise TripoRefusal(400, 2005, "The source task is not successful")
        match reference.what:
            case "picture":
                fits = "generated_image_url" in task.output
            case "views":
                fits = "front_view_url" in task.output
            case "model":
                fits = task.output.get("model_url", "").endswith(_MODEL_SUFFIX)
        if not fits:
            raise TripoRefusal(400, 2006, "The type of the source task does not fit")

    def _check_file(self, reference: Reference, token: str, account: Account, token_seconds: float) -> None:
        file = self._files.one(token)
        if file is None or file.account != account.id or time.time() > file.created_at + token_seconds:
            raise bad_parameter("the file token is unknown or has expired")
        kind = kind_of(file.content_type)
        if reference.what == "picture" and kind != "picture":
            raise TripoRefusal(400, 2004, "The image type is not supported")
        if reference.what == "model" and kind != "model":
            raise bad_parameter("the model type is not supported: the sandbox reads GLB, STL and OBJ")
        if reference.what == "views":
            raise bad_parameter("views come from a task that made them")

    def _has_picture(self, reference: Reference, account: Account) -> bool:
        if not is_task_id(reference.value):
            return False
        task = self._tasks.one(reference.value, account.id)
        return task is not None and task.kind != "import"
