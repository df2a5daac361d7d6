"""An asset kind that the product does not know is one file, one line of a registry, and its table."""

from __future__ import annotations

import io
import re
from pathlib import Path

import app
import pytest
from app.container import build_registry as build_product
from app.db.asset_tables import AssetTables
from app.domain.storage_keys import output_key, preview_key
from PIL import Image

from tests.unit.ai_clients.support import make_settings
from tests.unit.extension.mp4 import film, pictures_of
from tests.unit.extension.registry import build_registry
from tests.unit.extension.video import MP4, VIDEO

HERE = Path(__file__).parent
GUIDE = HERE.parents[2] / "docs" / "extending.md"


def test_no_file_of_the_product_names_it() -> None:
    files = [path for path in Path(next(iter(app.__path__))).rglob("*") if path.suffix in (".py", ".sql", ".json")]
    assert len(files) > 100
    assert [path for path in files if VIDEO.name in path.read_text(encoding="utf-8").lower()] == []
    assert VIDEO.name not in build_product().asset_kinds


@pytest.mark.parametrize("name", ["video.py", "videos.sql", "registry.py", "gateway.py"])
def test_the_guide_shows_what_runs_here(name: str) -> None:
    language = "python" if name.endswith(".py") else "sql"
    shown = re.findall(
        rf'^```{language} title="{re.escape(name)}"\n(.*?)^```$', GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert shown == [(HERE / name).read_text("utf-8")]


def test_its_files_have_keys_of_their_own() -> None:
    assert output_key(VIDEO, "task-0001", 0, "mp4") == "videos/task-0001/film.mp4"
    assert output_key(VIDEO, "task-0001", 2, "mp4") == "videos/task-0001/film_2.mp4"
    assert preview_key("videos/task-0001/film.mp4") == "videos/task-0001/film.preview.webp"


def test_it_has_a_field_and_a_table_beside_those_of_the_product() -> None:
    kinds = build_registry().asset_kinds
    assert kinds.result_fields == {"image_urls": True, "model_url": False, "video_url": False}
    tables = AssetTables.of(make_settings(), kinds)
    assert tables.names == ["input_assets", "concept_images", "models", "videos"]


def test_its_type_is_known_by_its_bytes() -> None:
    pictures: list[bytes] = []
    for colour in ("teal", "navy"):
        out = io.BytesIO()
        Image.new("RGB", (16, 16), colour).save(out, "JPEG")
        pictures.append(out.getvalue())
    made = film(pictures, 16, 16)
    assert VIDEO.sniff(made) == MP4.name
    assert VIDEO.sniff(pictures[0]) is None
    assert pictures_of(made) == pictures
