"""Arguments as their tool's input schema declares them: JSON Schema, made to say no."""

import time
from typing import Any

import pytest

from whygate.core.schemas import of_tool

TEXT = {"type": "string"}
CASES: list[tuple[dict[str, Any], Any, tuple[str, str] | None]] = [
    ({"properties": {"a": {"type": "integer"}}}, {"a": 1}, None),
    ({"properties": {"a": {"type": "integer"}}}, {"a": 1.0}, ("a", "type")),
    ({"properties": {"a": {"type": ["integer", "null"]}}}, {"a": 1.0}, ("a", "type")),
    ({"properties": {"a": {"type": "number"}}}, {"a": 1.0}, None),
    ({"properties": {"a": TEXT}}, {"b": 1}, ("", "additionalProperties")),
    ({"properties": {"a": TEXT}, "additionalProperties": True}, {"b": 1}, None),
    ({"properties": {"a": TEXT}, "additionalProperties": {"type": "integer"}}, {"b": "x"}, ("*", "type")),
    ({"properties": {"a": TEXT}, "required": ["a"]}, {}, ("a", "required")),
    ({"properties": {"a": {"required": ["b"]}}}, {"a": {"c": 1}}, ("a.b", "required")),
    ({}, {"anything": 1}, None),
    ({"properties": {}}, {"anything": 1}, None),
    ({"properties": {"a": {"properties": {"b": TEXT}}}}, {"a": {"c": 1}}, ("a", "additionalProperties")),
    ({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"properties": {"b": TEXT}}}}, {"a": {"c": 1}}, ("a", "unevaluatedProperties")),
    ({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"properties": {"b": TEXT}}}}, {"a": {"b": "x"}}, None),
    ({"allOf": [{"properties": {"a": TEXT}}, {"properties": {"b": TEXT}}]}, {"a": "x", "b": "y"}, None),
    ({"allOf": [{"properties": {"a": TEXT}}, {"properties": {"b": TEXT}}]}, {"c": "x"}, ("", "unevaluatedProperties")),
    ({"anyOf": [{"properties": {"a": TEXT}, "additionalProperties": True}, {"type": "null"}]}, {"c": "x"}, None),
    ({"properties": {"down": {"$ref": "#"}}}, {"down": {"down": {}}}, None),
    ({"properties": {"down": {"$ref": "#"}}}, {"down": {"x": {}}}, ("down", "additionalProperties")),
    ({"properties": {"a": {"$anchor": "x", "type": "integer"}, "b": {"$ref": "#x"}}}, {"b": "no"}, ("b", "type")),
    ({"$dynamicAnchor": "n", "properties": {"a": {"$dynamicRef": "#n"}}}, {"b": 1}, None),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": TEXT}}, {"b": 1}, ("", "additionalProperties")),
    ({"properties": {"mail": {"pattern": "^(?!x)[a-z]+$"}}}, {"mail": "xa"}, ("mail", "pattern")),
    ({"properties": {"mail": {"pattern": "^(?!x)[a-z]+$"}}}, {"mail": "ab"}, None),
    ({"properties": {"x": {"type": "string", "x-whygate-exact": True}}}, {"x": "text"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "args", "wrong"), CASES)
def test_what_fits_and_what_does_not(schema: dict[str, Any], args: Any, wrong: tuple[str, str] | None) -> None:
    """Types are exact, what lists its members has no others, and the place is told with names of the schema alone."""
    assert (
        of_tool({"type": "object", **schema} if "allOf" not in schema and "anyOf" not in schema else schema).wrong(args)
        == wrong
    )


@pytest.mark.parametrize("pattern", ["^(a|a)*(?=b)$", "^(?:(?=a)(a|aa))+$", "^(?=(a+)+$)b"])
def test_a_pattern_that_goes_on_for_ever_is_a_refusal(pattern: str) -> None:
    """Patterns with look-around have a bound of steps, and what is not settled by then does not pass, negated or not."""
    judge = of_tool({"properties": {"x": {"pattern": pattern}, "y": {"not": {"pattern": pattern}}}})
    assert judge.wrong({"x": "a" * 5000 + "!"}) is not None
    judge.wrong({"y": "a" * 5000 + "!"})


LARGE = [
    ({"a": {"type": "array", "items": TEXT}}, {"a": [1] * 500_000}, ("a[0]", "type")),
    ({"a": {"type": "array", "items": TEXT}}, {"a": ["x"] * 500_000}, None),
    ({"a": {"type": "array", "uniqueItems": True}}, {"a": [[n, {"b": n}] for n in range(100_000)]}, None),
    ({"a": {"pattern": "^(?!y)[a-z]+$"}}, {"a": "x" * 4_000_000}, None),
    ({"a": TEXT}, {str(n): n for n in range(100_000)}, ("", "additionalProperties")),
]


@pytest.mark.parametrize(("properties", "args", "wrong"), LARGE)
def test_as_much_as_a_request_can_hold_is_judged_in_time(
    properties: dict[str, Any], args: Any, wrong: tuple[str, str] | None
) -> None:
    """Other calls wait meanwhile: a tenth of a second here is what the worst takes; all errors of a list took six."""
    judge = of_tool({"type": "object", "properties": properties})
    since = time.perf_counter()
    assert judge.wrong(args) == wrong
    assert time.perf_counter() - since < 1.5
