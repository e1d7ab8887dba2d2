"""Arguments that a tool wants repeated in headers are found in its schema, and compared with what came."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whygate.mcp.mirrors import Mirrors, mirrors

NESTED = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "where": {"type": "object", "properties": {"shelf": {"type": "integer", "x-mcp-header": "Shelf"}}},
        "sure": {"type": "boolean", "x-mcp-header": "Sure"},
        "note": {"type": "string", "default": {"x-mcp-header": "data, no annotation"}},
    },
}


def _learnt(schema: Any = NESTED) -> Mirrors:
    made = Mirrors()
    made.learn(msgspec.Raw(json.dumps({"tools": [{"name": "t", "inputSchema": schema}]}).encode()), first=True)
    return made


def _told(args: Any, **headers: str) -> str:
    given = [(f"Mcp-Param-{name}", value) for name, value in headers.items()]
    return _learnt().mismatch({"name": "t", "arguments": args}, given)


@pytest.mark.parametrize(
    ("args", "headers"),
    [
        ({}, {}),
        ({"region": None}, {}),
        ({"region": "eu", "where": {"shelf": 4}}, {"Region": "eu", "Shelf": "4"}),
        ({"region": "Süd"}, {"region": "=?base64?U8O8ZA==?="}),
        ({"where": {"shelf": 42}}, {"Shelf": "42.0"}),
        ({"where": {"shelf": 42.0}}, {"Shelf": "42"}),
        ({"sure": True}, {"Sure": "true"}),
        ({"region": ["eu"]}, {}),
        ({}, {"Unknown": "x"}),
    ],
)
def test_what_agrees_passes(args: Any, headers: dict[str, str]) -> None:
    """There together and equal, or absent together; encoded or not; 42 is 42.0; a header nobody asked for is nobody's."""
    assert _told(args, **headers) == ""


@pytest.mark.parametrize(
    ("args", "headers"),
    [
        ({"region": "eu"}, {}),
        ({}, {"Region": "eu"}),
        (None, {"Region": "eu"}),
        ({"region": "eu"}, {"Region": "us"}),
        ({"region": "eu"}, {"Region": "EU"}),
        ({"region": "Hello"}, {"Region": "=?base64?SGVsbG8?="}),
        ({"region": "Hello"}, {"Region": "=?base64?SGVs!!!bG8=?="}),
        ({"where": {"shelf": 4}}, {"Shelf": "5"}),
        ({"where": {"shelf": 4}}, {"Shelf": "four"}),
        ({"sure": True}, {"Sure": "True"}),
        ({"region": ["eu"]}, {"Region": "eu"}),
    ],
)
def test_what_differs_is_named(args: Any, headers: dict[str, str]) -> None:
    """One without the other, another value, another case, broken base64: each names the header."""
    assert "mcp-param-" in _told(args, **headers)


@pytest.mark.parametrize(
    "schema",
    [
        {"x-mcp-header": "Top", "type": "object"},
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": ["string", "null"], "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 7}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}}},
        {"properties": {"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}},
        {"allOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]},
        True,
        None,
    ],
)
def test_a_schema_that_annotates_wrongly_asks_for_nothing(schema: Any) -> None:
    """Clients have to leave such a tool alone: what they send for it can't be held against them."""
    assert mirrors(schema) == ()


def test_a_first_page_replaces_what_was_known_and_others_add_to_it() -> None:
    """Tools that are gone from the list ask for nothing any more; what can't be read changes nothing."""
    made = _learnt()
    wrong = {"name": "t", "arguments": {"region": "eu"}}
    made.learn(msgspec.Raw(b'{"tools": [{"name": "u"}]}'), first=False)
    made.learn(msgspec.Raw(b'{"tools": 7}'), first=True)
    assert made.mismatch(wrong, [])
    made.learn(msgspec.Raw(b'{"tools": [{"name": "u"}]}'), first=True)
    assert made.mismatch(wrong, []) == ""


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["properties", "x-mcp-header", "type", "items", "a"]), inner)
        ),
    )
)
def test_no_schema_is_too_strange(schema: Any) -> None:
    """Whatever a server lists, the list is taken in without an error."""
    mirrors(schema)
