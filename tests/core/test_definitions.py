"""Definitions of tools: their digest, what counts as the same, and nothing that a reviewer could overlook."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whygate.core import definitions, pins
from whygate.core.definitions import Unreadable
from whygate.core.policy.errors import PolicyErrors
from whygate.core.schemas import Unusable

TOOL: dict[str, Any] = {"name": "t", "description": "Does it.", "inputSchema": {"type": "object"}, "title": "T"}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)


def test_anybody_can_make_the_digest() -> None:
    """Three lines of standard library give the digest of a definition."""
    said = json.dumps(TOOL, sort_keys=True, separators=(",", ":")).encode()
    assert definitions.digest(TOOL) == "sha256:" + hashlib.sha256(said).hexdigest()


@given(JSON)
def test_how_it_was_written_does_not_count(value: Any) -> None:
    """Blanks, escapes and the order of keys change no digest; every value does."""
    data = json.dumps({"name": "t", "x": value}, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        found = definitions.read(data)
    except Unreadable:
        return
    assert definitions.digest(found) == definitions.digest({"x": value, "name": "t"})
    assert definitions.digest(found) != definitions.digest({"name": "t", "x": [value]})


def test_one_and_one_point_nought_are_one() -> None:
    """Servers in other languages write 1 as 1.0."""
    assert definitions.canonical({"minimum": 1.0}) == definitions.canonical({"minimum": 1})
    assert definitions.canonical({"minimum": True}) != definitions.canonical({"minimum": 1})


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"name": 1}',
        b'{"name": "a", "name": "b"}',
        b'{"name": "t", "inputSchema": {"a": 1, "a": 2}}',
        b'{"name": "t", "x": NaN}',
        b'{"name": "a b"}',
        '{"name": "s\u0435nd"}'.encode(),
        b'{"name": "t", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"name": "t", "x": "' + b"x" * 300_000 + b'"}',
        b'{"name": "t\xff"}',
    ],
)
def test_what_can_be_read_in_two_ways_is_no_definition(data: bytes) -> None:
    """Keys twice, what is no JSON, letters that look like others in a name, and sizes beyond reason."""
    with pytest.raises(Unreadable):
        definitions.read(data)


def test_an_older_client_is_told_less_and_nothing_else() -> None:
    """A list for an older revision leaves members out; whatever it does say is as pinned."""
    assert definitions.fits({key: TOOL[key] for key in ("name", "description", "inputSchema")}, TOOL)
    assert not definitions.fits({"name": "t", "inputSchema": {"type": "object"}}, TOOL)
    assert not definitions.fits({"name": "t", "description": "Does it."}, TOOL)
    assert not definitions.fits(TOOL | {"icons": []}, TOOL)
    assert not definitions.fits(TOOL | {"title": "Another"}, TOOL)
    assert definitions.joined({"name": "t", "title": "T"}, {"name": "t", "_meta": {}}) == {
        "name": "t",
        "title": "T",
        "_meta": {},
    }
    assert definitions.joined(TOOL, TOOL | {"title": "Another"}) is None


@given(st.text())
def test_nothing_invisible_is_shown(text: str) -> None:
    """What is shown, on a screen or in the file of pins, has no control, direction, filler or tag in it."""
    for shown in (definitions.shown(text), definitions.pretty({"a": [text]}).replace("\n", "")):
        assert not any(definitions.invisible(char) for char in shown)
    assert json.loads(definitions.pretty({"a": [text]})) == {"a": [text]}


@pytest.mark.parametrize(
    "char", ["\x1b", "\u200b", "\u202e", "\u2066", "\ufe0f", "\U000e0041", "\u3164", "\xad", "\x7f", "\ud800"]
)
def test_known_disguises_are_spelt_out(char: str) -> None:
    """Escapes of terminals, zero widths, right-to-left, variation selectors, tags, fillers, soft hyphens."""
    assert definitions.shown(f"a{char}b").startswith("a\\u")


# --- the file ---


def text(**changed: Any) -> str:
    return pins.text_of("up", [pins.pin("up", TOOL | changed, by="ada", at="2026-01-01T00:00:00Z")])


def test_a_file_of_pins_comes_back_as_it_went() -> None:
    """Written and read, a pin is the same, and so is the text."""
    made = pins.load({"up.json": text()})
    (pin,) = made.by_tool.values()
    assert (pin.server, pin.name, pin.by, pin.digest) == ("up", "t", "ada", definitions.digest(TOOL))
    assert pins.text_of("up", [pin]) == text()
    assert made.digest == pins.load({"up.json": text()}).digest != pins.load({}).digest


WRONG = [
    (text().replace("Does it.", "Does that."), "up.json:5:5: t: its definition was edited"),
    (text().replace('"server": "up"', '"server": "other"'), "up.json:1:1: holds pins of 'other'"),
    (text().replace('"pins": 1', '"pins": 2'), "up.json:1:1: pins: 1 is what this version reads"),
    (text().replace('"by": "ada",', ""), "up.json:1:1: is no file of pins: Object missing required field `by`"),
    (text().replace('"by": "ada"', '"by": "ada", "by": "eve"'), "up.json:1:1: has a key twice"),
    (text().replace('"t": {', '"u": {'), "up.json:5:5: u: its definition is another tool's"),
    ("{\n,", "up.json:2:1: is no JSON"),
    ("[" * 100_000, "up.json:1:1: is no file of pins"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_a_file_with_an_error_is_refused_with_its_place(given: str, told: str) -> None:
    """Edited by hand, of another server or version, incomplete, ambiguous: nothing of it is taken."""
    with pytest.raises(PolicyErrors) as refused:
        pins.load({"up.json": given})
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        {"$ref": "https://elsewhere.test/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/missing"},
        {"type": "nonsense"},
        {"properties": {"a": {"pattern": "("}}},
        {"$schema": "https://elsewhere.test/dialect"},
    ],
)
def test_a_schema_that_cant_be_kept_to_cant_be_pinned(schema: Any) -> None:
    """No schema, one that leads elsewhere, one that is none: said when it is pinned, not when it is called."""
    with pytest.raises(Unusable):
        pins.pin("up", {"name": "t", "inputSchema": schema}, by="", at="")
