"""Operations of an OpenAPI document: what is read of it, what is left out, and how arguments are typed."""

import json
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from whygate.core.reasons import Code
from whygate.core.strict_json import MAX_SAFE_INTEGER, Unreadable
from whygate.http import openapi
from whygate.http.openapi import Document, OpenApiRefused, Operation, besides, document, read
from whygate.http.routes import Route
from whygate.http.schemas import Schemas, Unusable

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
EXAMPLE = next(
    block for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL) if "3.0.3" in block
)


def api(version: str = "3.1.0", schemas: Any = None, **paths: Any) -> Document:
    """A document; ``paths`` by operation id, each as ``(path, method, operation)``."""
    tree: dict[str, Any] = {"openapi": version, "paths": {}, "components": {"schemas": schemas or {}}}
    for name, (path, method, operation) in paths.items():
        tree["paths"].setdefault(path, {})[method] = {"operationId": name, **operation}
    return document(tree)


def query(schema: Any, **more: Any) -> Operation:
    """An operation with one query field ``x``."""
    made = api(op=("/x", "get", {"parameters": [{"name": "x", "in": "query", "schema": schema, **more}]}))
    assert made.left_out == ()
    return made.operations[0]


def taking(schema: Any, version: str = "3.1.0", *, required: bool = False, **schemas: Any) -> Operation:
    """An operation with a JSON body."""
    body = {"required": required, "content": {"application/json": {"schema": schema}}}
    made = api(version, schemas, op=("/x", "post", {"requestBody": body}))
    assert made.left_out == ()
    return made.operations[0]


def asked(operation: Operation, text: str = "", body: Any = ..., **path: str) -> Any:
    data = b"" if body is ... else body if isinstance(body, bytes) else json.dumps(body).encode()
    return operation.signature.read(path, text.encode(), data, "application/json" if data else "")


def refused(operation: Operation, text: str = "", body: Any = ..., **path: str) -> str:
    with pytest.raises(Unreadable) as caught:
        asked(operation, text, body, **path)
    assert caught.value.code is Code.ARGS_SCHEMA_INVALID, caught.value.note
    return caught.value.note


def left_out(version: str = "3.1.0", schemas: Any = None, path: str = "/x", **operation: Any) -> str:
    made = api(version, schemas, op=(path, "post", operation))
    assert made.operations == ()
    (reason,) = made.left_out
    return reason.partition(": ")[2]


# --- the example of the page ---


@pytest.fixture
def example(tmp_path: Path) -> dict[str, Operation]:
    (tmp_path / "billing.yaml").write_text(EXAMPLE)
    found = read(tmp_path / "billing.yaml")
    assert found.left_out == ()
    return {one.name: one for one in found.operations}


def test_the_example_of_the_page_is_typed_as_it_says(example: dict[str, Operation]) -> None:
    """Numbers and booleans come out of text as what they are declared, and what the page calls refused is."""
    listing, refund = example["invoice_list"], example["refund"]
    assert (refund.method, refund.path) == ("POST", "/invoices/{number}/refunds")
    assert asked(listing, "limit=50&paid=true&status=open&status=paid") == {
        "limit": 50,
        "paid": True,
        "status": ["open", "paid"],
    }
    assert asked(refund, body={"amount_cents": 5000}, number="1042") == {"number": 1042, "amount_cents": 5000}
    assert refused(listing, "limit=007") == "query limit: type"
    assert refused(listing, "paid=True") == "query paid: type"
    assert refused(listing, "limit=101") == "parameters limit: maximum"
    assert refused(listing, "status=lost") == "parameters status[0]: enum"
    assert refused(listing, "sort=up") == "query: not declared"
    assert refused(refund, body={"amount_cents": 1.0}, number="1") == "body amount_cents: type"
    assert refused(refund, body={"amount_cents": "5000"}, number="1") == "body amount_cents: type"
    assert refused(refund, body={"amount_cents": 1, "to": "me"}, number="1") == "body: not declared"
    assert refused(refund, body={}, number="1") == "body amount_cents: required"
    assert refused(refund, number="1") == "body: required"
    assert refused(refund, body={"amount_cents": 1}, number="x") == "path number: type"


# --- text becomes values ---


@given(st.text(max_size=24) | st.from_regex(r"[-+]?[0-9_.eE]{1,18}", fullmatch=True))
def test_a_text_is_an_integer_in_one_way_or_refused(text: str) -> None:
    """What comes out is the integer whose one decimal form was sent, as JSON would write it."""
    try:
        made = asked(INTEGER, urlencode({"x": text}))["x"]
    except Unreadable:
        assert not re.fullmatch(r"0|-?[1-9][0-9]{0,14}", text)
        return
    assert type(made) is int
    assert str(made) == text
    assert abs(made) <= MAX_SAFE_INTEGER


@given(st.text(max_size=24) | st.from_regex(r"[-+]?[0-9_.eE]{1,18}", fullmatch=True) | st.floats().map(repr))
def test_a_text_is_a_number_in_one_way_or_refused(text: str) -> None:
    """What comes out is what JSON reads in the same text; no exponents, no infinities."""
    try:
        made = asked(NUMBER, urlencode({"x": text}))["x"]
    except Unreadable:
        return
    assert type(made) in (int, float)
    assert math.isfinite(made)
    assert made == json.loads(text)
    assert type(made) is type(json.loads(text))


@given(st.text(max_size=8) | st.sampled_from(["true", "false", "True", "1", "yes", "on", "TRUE", ""]))
def test_a_text_is_a_boolean_in_one_way_or_refused(text: str) -> None:
    """Two words, in small letters."""
    try:
        made = asked(BOOLEAN, urlencode({"x": text}))["x"]
    except Unreadable:
        assert text not in ("true", "false")
        return
    assert made is (text == "true")


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=6), st.booleans())
def test_a_list_has_the_items_that_were_sent_or_is_refused(items: list[str], exploded: bool) -> None:
    """Repeated or with commas: no item is split, joined or dropped."""
    operation = LISTS[exploded]
    text = "&".join(f"x={quote(item)}" for item in items) if exploded else "x=" + ",".join(map(quote, items))
    if any("," in item for item in items):
        assert "one reading" in refused(operation, text)
    else:
        assert asked(operation, text) == {"x": items}


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "zz"]), st.integers() | st.floats() | st.text() | st.none()))
def test_a_body_is_as_declared_or_refused(body: dict[str, Any]) -> None:
    """Whatever is sent: what comes out fits the declaration member by member, and what is forwarded is what was read."""
    try:
        made = asked(BODY, body=body)
    except Unreadable:
        return
    assert made == body
    assert made.keys() <= {"a", "b", "c"}
    assert type(made["a"]) is int
    assert 0 <= made["a"] <= 9
    assert type(made.get("b", 0)) in (int, float)
    assert type(made.get("c", "")) in (str, type(None))


INTEGER, NUMBER, BOOLEAN = (query({"type": kind}) for kind in ("integer", "number", "boolean"))
LISTS = {
    exploded: query({"type": "array", "items": {"type": "string"}}, explode=exploded) for exploded in (True, False)
}
BODY = taking(
    {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "integer", "minimum": 0, "maximum": 9},
            "b": {"type": "number"},
            "c": {"type": ["string", "null"]},
        },
    },
    required=True,
)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("x=1&x=2", "the query has a field twice"),
        ("x=%zz", "the query can't be read in one way only"),
        ("x=1;y=2", "the query can't be read in one way only"),
        ("x", "the query can't be read in one way only"),
        ("x=%ff", "the query is not UTF-8"),
        ("x=1&" * 256 + "x=1", "the query has more than 256 fields"),
    ],
)
def test_a_query_with_two_readings_is_none(text: str, note: str) -> None:
    """Before any type is looked at."""
    with pytest.raises(Unreadable) as caught:
        asked(INTEGER, text)
    assert caught.value.note == note


@pytest.mark.parametrize("text", ["x=", "x=1,", "x=,1", "x=1,,2", "x=1%2C2", "x=1, 2", "x=a"])
def test_a_list_of_integers_has_no_gaps(text: str) -> None:
    """An empty item, a comma that hides behind an escape, a blank: each has a second reading."""
    refused(query({"type": "array", "items": {"type": "integer"}}, explode=False), text)


def test_types_are_found_where_generators_put_them() -> None:
    """Optional integers as FastAPI writes them, references, lists by reference, and nothing at all for a string."""
    optional = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert asked(query(optional), "x=3") == {"x": 3}
    assert asked(query({}), "x=3") == {"x": "3"}
    assert asked(query({"enum": ["3"]}), "x=3") == {"x": "3"}
    assert asked(query({"anyOf": [{"type": "array", "items": optional}, {"type": "null"}]}), "x=3&x=4") == {"x": [3, 4]}


# --- bodies ---


def test_composition_closes_the_whole_and_not_its_parts() -> None:
    """``allOf`` of two objects takes the members of both and no third, at every depth."""
    base = {"type": "object", "properties": {"a": {"type": "integer"}}}
    more = {
        "allOf": [{"$ref": "#/components/schemas/Base"}, {"properties": {"b": {"$ref": "#/components/schemas/More"}}}]
    }
    operation = taking({"$ref": "#/components/schemas/More"}, Base=base, More=more)
    assert asked(operation, body={"a": 1, "b": {"a": 2, "b": {}}}) == {"a": 1, "b": {"a": 2, "b": {}}}
    assert refused(operation, body={"a": 1, "c": 1}) == "body: not declared"
    assert refused(operation, body={"b": {"b": {"c": 1}}}) == "body b.b: not declared"
    assert refused(operation, body={"b": {"a": "x"}}) == "body b.a: type"


def test_additional_members_are_there_where_they_are_asked_for() -> None:
    """A map, an open object, and an object that lists nothing; names that only the caller used are not repeated."""
    numbers = taking({"type": "object", "additionalProperties": {"type": "integer"}})
    assert asked(numbers, body={"any": 1}) == {"any": 1}
    assert refused(numbers, body={"my secret": "x"}) == "body *: type"
    assert asked(taking({"properties": {"a": {}}, "additionalProperties": True}), body={"b": 1}) == {"b": 1}
    assert asked(taking({"type": "object"}), body={"b": 1}) == {"b": 1}
    assert refused(taking({"properties": {"a": {}}}), body={"b": 1}) == "body: not declared"


def test_words_of_openapi_3_0() -> None:
    """``nullable``, ``exclusiveMinimum: true``, ``readOnly`` and what stands beside a reference."""
    schema = {
        "type": "object",
        "required": ["a", "id"],
        "properties": {
            "a": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            "b": {"type": "string", "nullable": True, "enum": ["x"]},
            "id": {"type": "string", "readOnly": True},
            "r": {"$ref": "#/components/schemas/R", "maxLength": 1},
        },
    }
    operation = taking(schema, "3.0.3", R={"type": "string"})
    assert asked(operation, body={"a": 1, "b": None, "r": "long"}) == {"a": 1, "b": None, "r": "long"}
    assert refused(operation, body={"a": 0}) == "body a: exclusiveMinimum"
    assert refused(operation, body={"a": 1, "id": "mine"}) == "body: not declared"
    assert refused(operation, body={"a": 1, "b": "y"}) == "body b: enum"


def test_bodies_that_are_no_object_and_bodies_that_nobody_declared() -> None:
    """A list stands as ``body``; ``null`` is a value; without a declaration there is no body at all."""
    numbers = taking({"type": "array", "items": {"type": "integer"}})
    assert asked(numbers, body=[1, 2]) == {"body": [1, 2]}
    assert refused(numbers, body=[1, 2.0]) == "body [1]: type"
    assert refused(numbers, body=b"null") == "body: type"
    assert asked(taking({"type": ["object", "null"]}), body=b"null") == {"body": None}
    assert asked(numbers) == {}
    assert refused(INTEGER, "x=1", body={"y": 1}) == "body: not declared"
    with pytest.raises(Unreadable, match="takes a JSON body"):
        numbers.signature.read({}, b"", b"a=1", "application/x-www-form-urlencoded")


def test_an_argument_from_two_places_is_none() -> None:
    """As without a document: the tool might read the other one."""
    operation = {
        "parameters": [{"name": "a", "in": "query", "schema": {}}],
        "requestBody": {"content": {"application/json": {"schema": {"properties": {"a": {}}}}}},
    }
    (made,) = api(op=("/x", "post", operation)).operations
    with pytest.raises(Unreadable) as caught:
        asked(made, "a=1", body={"a": "2"})
    assert caught.value.code is Code.REQUEST_DUPLICATE_KEY


def test_patterns_cost_no_more_than_their_text() -> None:
    """The one that backtracking engines choke on is answered at once; one that needs backtracking is not taken."""
    assert refused(
        taking({"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}), body={"a": "a" * 9999 + "!"}
    )
    assert "can't be used" in left_out(
        requestBody={"content": {"application/json": {"schema": {"type": "string", "pattern": "(?=a)b"}}}}
    )


def test_what_can_not_be_judged_is_wrong() -> None:
    """A value that the library chokes on is not let through."""
    validator = Schemas({}, old=False).validator({"type": "string"})
    assert validator.wrong({1, 2}) == ("", "can't be checked")


# --- documents ---


def body_of(schema: Any) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ({"operationId": ""}, "has no operationId"),
        (body_of({"$ref": "https://elsewhere.example/s.json"}), "a $ref leads elsewhere than to"),
        (body_of({"$ref": "other.yaml#/components/schemas/A"}), "a $ref leads elsewhere than to"),
        (body_of({"$ref": "#/components/schemas/Nothing"}), "#/components/schemas/Nothing is not there"),
        (body_of({"$ref": "#/components/schemas/Loop"}), "the schema Loop contains itself without end"),
        (body_of({"properties": {"a": {"$ref": "#/components/schemas/Ping"}}}), "contains itself without end"),
        (body_of({"properties": {"a": {"$id": "https://x"}}}), "the keyword $id is not understood"),
        (body_of({"madeUp": 1}), "the keyword madeUp is not understood"),
        (body_of({"type": "strin"}), "its schema can't be used"),
        (body_of({"properties": []}), "properties is no map of names"),
        (body_of({"allOf": {}}), "allOf is no list"),
        (body_of([]), "a schema is no object"),
        ({"requestBody": {"content": {"multipart/form-data": {}}}}, "its body is not JSON"),
        ({"requestBody": {"$ref": "https://x"}}, "a $ref leads elsewhere than to #/components/requestBodies"),
        ({"requestBody": 1}, "one of its requestBodies is no object"),
        ({"parameters": {}}, "its parameters are no list"),
        ({"parameters": [{"name": "a"}]}, "a parameter has no name or no place"),
        ({"parameters": [{"name": "a", "in": "path"}]}, "the path and its parameters don't name the same"),
        ({"parameters": [{"name": "a", "in": "query", "style": "deepObject"}]}, "the parameter a is written in a way"),
        ({"parameters": [{"name": "a", "in": "query", "schema": {"type": "object"}}]}, "can be read in more than one"),
        (
            {"parameters": [{"name": "a", "in": "query", "schema": {"type": ["string", "integer"]}}]},
            "can be read in more than one way",
        ),
        (
            {"parameters": [{"name": "a", "in": "query", "schema": {"$ref": "#/components/schemas/Loop"}}]},
            "the schema Loop contains itself",
        ),
    ],
)
def test_what_can_not_be_kept_to_is_left_out(operation: dict[str, Any], reason: str) -> None:
    """The operation can't be called, and the operator is told why."""
    schemas = {
        "Loop": {"$ref": "#/components/schemas/Loop"},
        "Ping": {"allOf": [{"$ref": "#/components/schemas/Pong"}]},
        "Pong": {"anyOf": [{"type": "object"}, {"$ref": "#/components/schemas/Ping"}]},
    }
    assert reason in left_out(schemas=schemas, **operation)


@pytest.mark.parametrize("path", ["x", "/x/", "/a//b", "/a/../b", "/a%20b", "/{a}.json", "/{a}/{a}", "/a?b=1"])
def test_paths_are_whole_segments(path: str) -> None:
    """What the router could not tell apart, or an upstream could read otherwise, is no path."""
    parameters = [{"name": "a", "in": "path", "required": True, "schema": {}}] if "{" in path else []
    assert left_out(path=path, parameters=parameters).startswith("its path is not made of")


def test_two_that_can_not_be_told_apart_are_one() -> None:
    """The first of a name, and the first to answer a request, stands; the other is told of."""
    a, b = ([{"name": name, "in": "path", "required": True, "schema": {}}] for name in "ab")
    made = api(
        **{
            "get.it": ("/x/{a}", "get", {"parameters": a}),
            "other": ("/x/{b}", "get", {"parameters": b}),
            "get it": ("/y", "get", {}),
            "get_it": ("/z", "get", {}),
        }
    )
    assert [one.name for one in made.operations] == ["get.it", "get_it"]
    assert made.left_out == (
        "GET /x/{b}: another operation answers the same requests",
        "GET /z: the name get_it is taken",
    )


def test_the_configurations_own_operations_count_more() -> None:
    """The same one keeps its types; one of the same name or the same requests gives way."""
    made = api(a=("/a", "get", {}), b=("/b", "get", {}), c=("/c", "get", {}), d=("/d", "get", {}))
    own = (
        Route(name="a", method="GET", template="/a"),
        Route(name="b", method="GET", template="/elsewhere"),
        Route(name="mine", method="GET", template="/c"),
    )
    left = besides(made, own)
    assert [one.name for one in left.operations] == ["a", "d"]
    assert [reason.partition(":")[0] for reason in left.left_out] == ["GET /b", "GET /c"]


def test_parameters_of_a_path_are_those_of_its_operations() -> None:
    """Unless the operation says otherwise; headers and cookies are no arguments."""
    shared = {"name": "x", "in": "query", "schema": {"type": "integer"}}
    own = {"name": "x", "in": "query", "schema": {"type": "boolean"}}
    elsewhere = {"$ref": "#/components/parameters/Trace"}
    tree = {
        "openapi": "3.0.0",
        "paths": {"/x": {"parameters": [shared, elsewhere], "get": {"operationId": "a"}, "put": {"operationId": "b"}}},
        "components": {"parameters": {"Trace": {"name": "trace", "in": "header", "required": True}}},
    }
    tree["paths"]["/x"]["put"]["parameters"] = [own]  # type: ignore[index]  a tree of anything
    get, put = document(tree).operations
    assert (asked(get, "x=1"), asked(put, "x=true")) == ({"x": 1}, {"x": True})


def test_a_definition_changes_with_what_it_takes() -> None:
    """Records name the digest: the same document gives the same, another bound another."""
    assert query({"type": "integer"}).definition == INTEGER.definition
    assert query({"type": "integer", "maximum": 1}).definition != INTEGER.definition
    assert query({"type": "integer", "description": "told otherwise"}).definition == INTEGER.definition


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "is neither JSON nor YAML"),
        ("a: [", "is neither JSON nor YAML"),
        ('{"openapi": "3.1.0", "openapi": "3.1.0"}', "has a key twice"),
        ("a: &x 1\nb: *x\n", "has YAML aliases"),
        ("swagger: '2.0'\n", "is no OpenAPI document of version 3.0 or 3.1"),
        ("openapi: 4.0.0\n", "is no OpenAPI document of version 3.0 or 3.1"),
        ("[1]", "is no OpenAPI document of version 3.0 or 3.1"),
        ("openapi: 3.1.0\npaths: [1]\n", "has no map of paths"),
        ('{"a":' * 100_000, "is nested too deeply"),
        ("\xe9", "is neither JSON nor YAML"),
    ],
)
def test_a_document_that_is_none_is_told(tmp_path: Path, text: str, what: str) -> None:
    """One line that names the file; nothing is started with it."""
    (tmp_path / "api.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(OpenApiRefused) as caught:
        read(tmp_path / "api.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'api.yaml'}: {what}")


def test_documents_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes and by operations; and one that is not there is told as well."""
    with pytest.raises(OpenApiRefused, match="can't be read"):
        read(tmp_path / "nowhere.yaml")
    (tmp_path / "api.yaml").write_text(EXAMPLE)
    with monkeypatch.context() as patched:
        patched.setattr(openapi, "MAX_OPERATIONS", 1)
        with pytest.raises(OpenApiRefused, match="more than 1 operations"):
            read(tmp_path / "api.yaml")
    monkeypatch.setattr(openapi, "MAX_BYTES", 10)
    with pytest.raises(OpenApiRefused, match="above 10 bytes"):
        read(tmp_path / "api.yaml")


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    """One document in both spellings gives the same definitions."""
    (tmp_path / "a.yaml").write_text(EXAMPLE)
    (tmp_path / "a.json").write_text(json.dumps(yaml.safe_load(EXAMPLE)))
    found = [[(one.name, one.definition) for one in read(tmp_path / name).operations] for name in ("a.yaml", "a.json")]
    assert found[0] == found[1]


def test_dates_without_quotes_are_no_values() -> None:
    """YAML makes dates of them; an enum of dates would match no text."""
    schema = yaml.safe_load("{type: string, enum: [2026-01-01]}")
    assert "not JSON" in left_out(**body_of(schema))
    with pytest.raises(Unusable):
        Schemas({}, old=False).items({"$ref": "elsewhere"})
