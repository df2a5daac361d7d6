"""From a URL in a request to a checked object of the caller's own. The URL itself is never fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote
from uuid import UUID

from app.config import Settings
from app.db import assets, files
from app.db.assets import Sources
from app.db.files import FileRow
from app.db.pool import Database
from app.domain.params import ObjectRef
from app.domain.storage_urls import ContentRef, StorageRef, parse_storage_url
from app.errors import AppError, ErrorCode
from app.queue.plans import CheckedInput
from app.services.input_files import InputFiles


@dataclass(frozen=True, slots=True)
class ResolvedInput:
    """An input that exists, is what it should be, and is the caller's."""

    ref: ObjectRef
    sources: Sources
    width: int | None = None
    height: int | None = None

    @property
    def checked(self) -> CheckedInput | None:
        """The ``input_assets`` row that is now known to be good."""
        row_id = self.sources.input_asset_id
        return None if row_id is None else CheckedInput(row_id, self.width, self.height)


class InputResolver:
    def __init__(self, database: Database, inputs: InputFiles, settings: Settings) -> None:
        self._database = database
        self._inputs = inputs
        self._settings = settings
        self._buckets = frozenset((*settings.input_bucket_names, settings.generated_assets_bucket_name))

    async def objects(self, urls: Iterable[str], user_id: UUID) -> dict[str, StorageRef]:
        """The objects that the URLs name, whether they exist (any more) or not; a URL that names none is left out."""
        found: dict[str, StorageRef] = {}
        for url in urls:
            try:
                parsed = self._parsed(url)
            except AppError:
                continue
            if isinstance(parsed, ContentRef):
                parsed = await files.object_of(self._database, parsed.file_id, user_id)
            if parsed is not None:
                found[url] = parsed
        return found

    def lasting_url(self, ref: StorageRef) -> str:
        """The object's URL for who may read it anyway: no token, no key."""
        return f"{self._settings.supabase_url}/storage/v1/object/authenticated/{ref.bucket}/{quote(ref.key)}"

    async def picture(self, url: str, user_id: UUID) -> ResolvedInput:
        """Raises AppError with one of the INPUT_* codes."""
        ref, file = await self._own_object(url, user_id)
        ref, seen = await self._inputs.inspect_picture(ref, user_id)
        sources = await self._sources(url, ref, file, user_id)
        return ResolvedInput(ref, sources, seen.width, seen.height)

    async def model(self, url: str, user_id: UUID) -> ResolvedInput:
        """Raises AppError with one of the INPUT_* codes."""
        ref, file = await self._own_object(url, user_id)
        ref = await self._inputs.inspect_model(ref)
        return ResolvedInput(ref, await self._sources(url, ref, file, user_id))

    async def _own_object(self, url: str, user_id: UUID) -> tuple[ObjectRef, FileRow | None]:
        parsed = self._parsed(url)
        if isinstance(parsed, ContentRef):
            file = await files.by_id(self._database, parsed.file_id)
            if file is None or file.bucket not in self._buckets:
                raise AppError(ErrorCode.INPUT_NOT_FOUND)
        else:
            file = await files.by_key(self._database, parsed.bucket, parsed.key)
        if file is not None:
            # our own manifest knows whose it is
            if file.user_id != user_id or file.state != "stored":
                raise AppError(ErrorCode.INPUT_NOT_FOUND)
            return ObjectRef(file.bucket, file.key), file
        if isinstance(parsed, ContentRef):
            raise AppError(ErrorCode.INPUT_NOT_FOUND)
        ref = ObjectRef(parsed.bucket, parsed.key)
        if not parsed.key.startswith(f"{user_id}/"):
            owner = await files.owner_in_storage(self._database, parsed.bucket, parsed.key)
            if owner != str(user_id):
                raise AppError(ErrorCode.INPUT_NOT_FOUND)
        return ref, None

    def _parsed(self, url: str) -> StorageRef | ContentRef:
        return parse_storage_url(
            url,
            supabase_url=self._settings.supabase_url,
            public_base_url=self._settings.public_base_url,
            allowed_buckets=self._buckets,
        )

    async def _sources(self, url: str, ref: ObjectRef, file: FileRow | None, user_id: UUID) -> Sources:
        base = f"{self._settings.supabase_url}/storage/v1/object"
        path = f"{ref.bucket}/{ref.key}"
        spellings = [url, f"{base}/public/{path}", f"{base}/authenticated/{path}", f"{base}/{path}"]
        return await assets.sources_of(
            self._database, user_id=user_id, file_id=None if file is None else file.id, urls=spellings
        )
