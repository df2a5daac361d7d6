"""What the loader makes of a file of named statements."""

from __future__ import annotations

import pytest
from app.db.asset_tables import AssetTables
from app.db.sql import Texts, parse
from app.domain.asset_kinds import AssetKinds
from app.outputs.kinds import KINDS

from tests.unit.ai_clients.support import make_settings

SETTINGS = make_settings(
    input_assets_table_name="inputs_there", concept_images_table_name="concepts_there", models_table_name="models_there"
)
TEXTS = AssetTables.of(SETTINGS, AssetKinds(KINDS)).texts()


def test_parameters_get_numbers_in_the_order_of_their_first_use() -> None:
    found = parse("-- name: find\n-- Finds.\nselect :b::text, :a, x from t where y = :b and z = ':no' -- not :this\n")
    statement = found["find"]
    assert statement.text == "select $1::text, $2, x from t where y = $1 and z = ':no' -- not :this\n"
    assert (statement.description, statement.parameters, statement.writes) == ("Finds.", ("b", "a"), False)
    assert TEXTS.resolve(statement, (), {"a": 1, "b": 2}) == (statement.text, [2, 1])


@pytest.mark.parametrize("given", [{}, {"a": 1}, {"a": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}])
def test_values_are_given_by_name_and_all_of_them(given: dict[str, object]) -> None:
    statement = parse("-- name: find\n-- Finds.\nselect :a, :b")["find"]
    with pytest.raises(TypeError, match="find takes a, b"):
        TEXTS.resolve(statement, (), given)
    with pytest.raises(TypeError):
        TEXTS.resolve(statement, (1, 2), {})
    with pytest.raises(TypeError):
        TEXTS.resolve("select $1", (1,), given | {"a": 1})


def test_asset_tables_are_put_in() -> None:
    source = """-- name: all_outputs
-- Everything.
select id from {inputs}
union all
-- each table union all
select id, {kind} as kind, {source_model_id}, '{name}'
from {table} where x = :x
-- end
order by 1
"""
    statement = parse(source)["all_outputs"]
    assert (
        TEXTS.of(statement)
        == """select id from inputs_there
union all
select id, 'concept'::text as kind, null::uuid as source_model_id, 'concept_images'
from concepts_there where x = $1
union all
select id, kind as kind, source_model_id, 'models'
from models_there where x = $1
order by 1
"""
    )
    assert TEXTS.of(statement) is TEXTS.of(statement)


def test_a_place_that_nothing_fills_is_an_error() -> None:
    with pytest.raises(KeyError):
        TEXTS.of(parse("-- name: odd\n-- Odd.\nselect 1 from {nothing}")["odd"])
    with pytest.raises(KeyError):
        Texts({}, []).of(parse("-- name: odd\n-- Odd.\nselect 1 from {inputs}")["odd"])


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("insert into t values (1)", True),
        ("with a as (update t x set b = 1 returning x) select * from a", True),
        ("delete from t", True),
        ("select pg_notify('a', 'b')", True),
        ("select updated_at from t for no key update of t skip locked", False),
    ],
)
def test_it_is_known_what_writes(text: str, *, writes: bool) -> None:
    assert parse(f"-- name: any\n-- Any.\n{text}")["any"].writes is writes


@pytest.mark.parametrize(
    "source",
    [
        "-- name: bare\nselect 1\n",
        "-- name: bare\n-- Says what it does, and does not.\n",
        "-- name: twice\n-- One.\nselect 1\n-- name: twice\n-- Two.\nselect 2\n",
    ],
)
def test_what_is_incomplete_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"bare|twice"):
        parse(source)
