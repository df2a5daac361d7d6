"""An asset kind that the product does not know: films, in a table of their own (``videos.sql``)."""

from __future__ import annotations

from app.domain.sniff import MediaType
from app.queue.contracts import AssetKind

MP4 = MediaType("video/mp4", "mp4", lambda head: head[4:8] == b"ftyp")

VIDEO = AssetKind(
    name="video",
    table="videos",
    columns=frozenset({"source_concept_image_id", "width", "height"}),
    key_template="videos/{task_id}/film{_number}.{extension}",
    result_field="video_url",
    media_types=(MP4,),
)
