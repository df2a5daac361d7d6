"""Storage: the key, and buckets that take what the gateway puts into them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from app import urls
from app.config import Settings
from app.db import doctor
from app.db.pool import UNREACHABLE
from app.domain.asset_kinds import AssetKinds
from app.domain.sniff import GLB, JPEG, PNG, WEBP
from app.errors import ConfigurationError
from app.services.doctor.examination import CheckContext, Group, Seen
from app.services.doctor.findings import Code, Finding, Ill
from app.services.doctor.opening import open_migrated
from app.services.input_files import IMPORTABLE_BYTES
from app.storage.base import ObjectNotFound, StorageDenied, StorageError
from app.storage.supabase_storage import Bucket, SupabaseStorage

_INPUT_TYPES = (PNG, JPEG, WEBP, GLB)


@dataclass(frozen=True, slots=True)
class _StoragePatient:
    context: CheckContext
    storage: SupabaseStorage

    @property
    def settings(self) -> Settings:
        return self.context.settings


@asynccontextmanager
async def _open(context: CheckContext) -> AsyncGenerator[_StoragePatient]:
    """Raises Ill."""
    settings = context.settings
    if _is_browsers_key(settings.supabase_service_key.get_secret_value()):
        raise Ill(Finding(Code.PUBLISHABLE_KEY, "it is a publishable or anon key"))
    try:
        storage = await SupabaseStorage.open(settings)
    except ConfigurationError as error:
        raise Ill(Finding(Code.STORAGE_KEY_REFUSED, error.detail or "the client does not take the key")) from None
    try:
        yield _StoragePatient(context, storage)
    finally:
        await storage.aclose()


def _is_browsers_key(key: str) -> bool:
    """By its name, or, of a legacy one, by the role that it carries."""
    if key.startswith("sb_publishable_"):
        return True
    parts = key.split(".")
    if len(parts) != 3:
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return claims["role"] in ("anon", "authenticated")
    except (binascii.Error, ValueError, KeyError, TypeError):
        return False


async def _results(patient: _StoragePatient) -> Seen:
    settings = patient.settings
    name = settings.generated_assets_bucket_name
    bucket = await _look(patient, name)
    largest = max(settings.max_model_bytes, settings.max_image_bytes)
    seen: list[Finding | str] = [
        f"{name} is {'public' if bucket.public else 'private'}",
        *_bounds(name, bucket, largest, _result_types(patient.context.kinds)),
    ]
    if not bucket.public and await _has_public_links(patient):
        seen.append(Finding(Code.RESULTS_UNREADABLE, f"{name} is private"))
    return seen


async def _inputs(patient: _StoragePatient) -> Seen:
    settings = patient.settings
    seen: list[Finding | str] = []
    for name in settings.input_bucket_names:
        try:
            bucket = await _look(patient, name)
        except Ill as error:
            seen += [] if error.finding is None or error.finding.code is not Code.BUCKET_MISSING else [error.finding]
            continue  # else the check of the results says it
        takes_uploads = name == settings.input_bucket_names[0]
        if bucket.public and (takes_uploads or name != settings.generated_assets_bucket_name):
            seen.append(Finding(Code.INPUT_BUCKET_PUBLIC, name))
        if takes_uploads:
            largest = max(settings.max_input_bytes, min(settings.max_model_bytes, IMPORTABLE_BYTES))
            seen += _bounds(name, bucket, largest, _INPUT_TYPES)
    return seen


async def _project(patient: _StoragePatient) -> Seen:
    largest = max(patient.settings.max_model_bytes, patient.settings.max_image_bytes)
    try:
        allowed = await patient.storage.project_allows(largest)
    except StorageError as error:
        return [f"the project's limit was not told ({error})"]  # the other checks say what is wrong
    return [] if allowed else [Finding(Code.PROJECT_LIMIT_SMALL, f"files of {largest:,} bytes are refused")]


async def _look(patient: _StoragePatient, name: str) -> Bucket:
    """Raises Ill."""
    where = urls.place(patient.settings.supabase_url)
    try:
        return await patient.storage.bucket(name)
    except ObjectNotFound:
        raise Ill(Finding(Code.BUCKET_MISSING, name)) from None
    except StorageDenied as error:
        raise Ill(Finding(Code.STORAGE_KEY_REFUSED, f"{where} answered {error}")) from None
    except StorageError as error:
        raise Ill(Finding(Code.STORAGE_UNREACHABLE, f"{where}: {error}")) from None


def _bounds(name: str, bucket: Bucket, largest: int, types: tuple[str, ...]) -> list[Finding]:
    seen: list[Finding] = []
    if bucket.max_bytes is not None and bucket.max_bytes < largest:
        seen.append(Finding(Code.BUCKET_LIMIT_SMALL, f"{name} takes {bucket.max_bytes:,} bytes, not {largest:,}"))
    if refused := [kind for kind in types if not bucket.takes(kind)]:
        seen.append(Finding(Code.BUCKET_TYPES, f"{name} refuses {', '.join(refused)}"))
    return seen


def _result_types(kinds: AssetKinds) -> tuple[str, ...]:
    """Of outputs, and of their previews."""
    of_kinds = [media_type.name for kind in kinds for media_type in kind.media_types]
    return tuple(dict.fromkeys([*of_kinds, WEBP]))


async def _has_public_links(patient: _StoragePatient) -> bool:
    prefix = patient.storage.public_url(patient.settings.generated_assets_bucket_name, "")
    try:
        async with open_migrated(patient.context) as gateway:
            return await doctor.has_links(gateway.database, prefix)
    except (Ill, *UNREACHABLE, asyncpg.PostgresError):
        return False  # the groups of the database tell it


STORAGE = Group("storage", _open, (_results, _inputs, _project), silence=Code.STORAGE_UNREACHABLE)
