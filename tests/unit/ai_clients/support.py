"""What the provider client tests share: settings with planted keys, pictures, and a look for leaked secrets."""

from __future__ import annotations

import base64
import io
import traceback
from pathlib import Path
from typing import Any

from app.ai_clients.base import FileInput
from app.ai_clients.registry import build_registry
from app.config import Settings
from PIL import Image

OPENAI_KEY = "sk-proj-PLANTEDopenai0123456789"
TRIPO_KEY = "tsk_PLANTEDtripo0123456789"
OPENAI_BASE = "https://api.openai.com/v1"
TRIPO_BASE = "https://openapi.tripo3d.ai/v3"


def make_settings(**changes: object) -> Settings:
    values: dict[str, Any] = {
        "supabase_url": "https://project.supabase.co",
        "supabase_service_key": "service",
        "database_url": "postgresql://app@localhost/db",
        "redis_url": "redis://localhost/0",
        "openai_api_key": OPENAI_KEY,
        "openai_base_url": OPENAI_BASE,
        "tripo_api_key": TRIPO_KEY,
        "tripo_base_url": TRIPO_BASE,
    }
    return build_registry().settings.model_validate(values | changes)


def picture_bytes(kind: str = "PNG", size: tuple[int, int] = (8, 6), colour: str = "teal") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def file_input(path: Path, data: bytes | None = None, content_type: str = "image/png") -> FileInput:
    path.write_bytes(picture_bytes() if data is None else data)
    return FileInput(path, content_type, path.name)


def assert_no_secrets(error: BaseException, *more: str) -> None:
    """Neither the exception nor anything a log would print of it holds a key."""
    text = "".join(traceback.format_exception(error)) + repr(error) + str(error)
    seen: BaseException | None = error
    while seen is not None:
        text += repr(seen) + str(vars(seen))
        seen = seen.__cause__ or seen.__context__
    for secret in (OPENAI_KEY, TRIPO_KEY, *more):
        assert secret not in text
