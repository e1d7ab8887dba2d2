"""JSON Schema as a judge of arguments: compiled once, asked on every call.

Rules of this file:

1. Nothing is ever fetched: a ``$ref`` that leads out of its document makes the schema unusable.
2. What lists its members has no others, unless it says so itself (``additionalProperties``, ``unevaluatedProperties``):
   what no reviewer of the schema saw does not pass.
3. ``1.0`` is no integer: a rule that asks ``type(args.x) == int`` would not see it.
4. Patterns are matched in linear time. One that needs more (look-around, back references) gets ``BACKTRACKS`` steps, and
   what is not settled by then is refused.
"""

from collections.abc import Iterator
from typing import Any, Final

from jsonschema_rs import (
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    FancyRegexOptions,
    RegexOptions,
    ValidationError,
    ValidationErrorKind,
)

EXACT: Final = "x-whygate-exact"
"""A keyword of our own, that tells ``1`` from ``1.0``. What a server itself writes under this name is taken out."""
UNDECLARED: Final = frozenset(("additionalProperties", "unevaluatedProperties", "unevaluatedItems"))
BACKTRACKS: Final = 10_000
"""Under a millisecond, for a pattern that an operator has pinned over a text that an agent has chosen."""
MAX_DEPTH: Final = 64
SMALL: Final = 200
"""Elements of a value of which every error is looked at, to tell the one that explains most; of a larger one the first."""

_DIALECTS: Final = {
    "json-schema.org/draft-07/schema": Draft7Validator,
    "json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "json-schema.org/draft/2020-12/schema": Draft202012Validator,
}


class Unusable(ValueError):
    """A schema that can't be kept to. Says why, for the operator."""


class _Exact:
    def __init__(self, parent_schema: dict[str, Any], value: Any, schema_path: list[str | int]) -> None:
        """As ``jsonschema_rs.KeywordValidator`` wants it."""

    def validate(self, instance: Any) -> None:
        if isinstance(instance, float):
            raise ValueError("no integer")  # noqa: TRY004  what the library takes as a refusal


class Validator:
    """Says what is wrong with a value, in words without any of it. May be used in threads."""

    def __init__(self, schema: Any, dialect: Any = Draft202012Validator, *, backtracks: bool = False) -> None:
        """``backtracks``: patterns may use look-around. Raises ``Unusable``."""
        self._names = frozenset(_names(schema))
        options = FancyRegexOptions(backtrack_limit=BACKTRACKS) if backtracks else RegexOptions()
        try:
            self._checks = dialect(
                schema, pattern_options=options, offline=True, validate_formats=False, keywords={EXACT: _Exact}
            )
        except (ValueError, ValidationError, RecursionError) as wrong:
            raise Unusable(f"its schema can't be used: {str(wrong).splitlines()[0][:120]}") from None

    def _errors(self, value: Any) -> list[ValidationError]:
        if _small(value):
            return list(self._checks.iter_errors(value))
        try:  # all of them take microseconds for each element, and the library gives them at once
            self._checks.validate(value)
        except ValidationError as first:
            return [first]
        return []

    def wrong(self, value: Any) -> tuple[str, str] | None:
        """Place and keyword of one thing that is wrong; ``None`` where nothing is. Names that only the caller used
        stand as ``*``.
        """
        try:
            if self._checks.is_valid(value):
                return None
            errors = self._errors(value)
        except Exception:  # noqa: BLE001  whatever the library can't judge is not let through
            return "", "can't be checked"
        if not errors:  # a pattern that broke off: said once, it is not asked again
            return "", "can't be checked"
        # A member whose own schema fails counts as undeclared as well: tell what is the matter, and where exactly.
        first = max(errors, key=lambda error: (error.kind.name not in UNDECLARED, len(error.instance_path)))
        place = ""
        for step in first.instance_path:
            if isinstance(step, int):
                place += f"[{step}]"
            else:
                place += ("." if place else "") + (step if step in self._names else "*")
        if isinstance(first.kind, ValidationErrorKind.Required):  # what is missing is a name of the schema
            place += ("." if place else "") + first.kind.property
        keyword = str(first.schema_path[-1]) if first.schema_path else "false"
        return place, "type" if keyword == EXACT else keyword


def _small(value: Any) -> bool:
    left, waiting = SMALL, [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list):
            left -= len(each)
            if left < 0:
                return False
            waiting += each.values() if isinstance(each, dict) else each
    return True


def of_tool(schema: Any) -> Validator:
    """The judge of a tool's arguments, from its ``inputSchema`` (MCP: JSON Schema 2020-12 unless ``$schema`` says
    otherwise). Raises ``Unusable``.
    """
    if not isinstance(schema, dict):
        raise Unusable("its schema is no object")
    said = schema.get("$schema", "https://json-schema.org/draft/2020-12/schema")
    dialect = _DIALECTS.get(str(said).partition("://")[2].rstrip("#"))
    if dialect is None:
        raise Unusable(f"the dialect {str(said)[:80]!r} of its schema is not spoken here")
    made = _Closing(schema, modern=dialect is not Draft7Validator).closed()
    try:
        return Validator(made, dialect)
    except Unusable:
        if not any(True for _ in _patterns(made)):
            raise
        return Validator(made, dialect, backtracks=True)


_MAPS: Final = frozenset(("properties", "patternProperties"))
_SHELVES: Final = frozenset(("$defs", "definitions"))
_PARTS: Final = frozenset(("allOf", "anyOf", "oneOf"))
_IN_PLACE: Final = frozenset(("not", "if", "then", "else"))
_BELOW: Final = frozenset(
    [
        "items",
        "additionalItems",
        "contains",
        "additionalProperties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_COMPOSED: Final = _PARTS | _IN_PLACE | {"$ref", "$dynamicRef", "$recursiveRef", "dependentSchemas", "dependencies"}
_DYNAMIC: Final = frozenset(("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"))


class _Closing:
    """A schema with rules 2 and 3 written into it. Structure and names stay, so every ``$ref`` leads where it led."""

    def __init__(self, schema: dict[str, Any], *, modern: bool) -> None:
        """``modern``: the dialect knows ``unevaluatedProperties`` (2019-09 and later)."""
        self._schema = schema
        self._modern = modern
        # What a dynamic reference leads to is known only while a value is looked at: such a schema stays open.
        self._closes = not any(_DYNAMIC & each.keys() for each in _objects(schema))

    def closed(self) -> dict[str, Any]:
        made: dict[str, Any] = self._made(self._schema, 0, part=False)
        return made

    def _made(self, schema: Any, depth: int, *, part: bool) -> Any:
        """``part``: it describes the same value as a schema around it or one that refers to it, which is the one to close."""
        if depth > MAX_DEPTH:
            raise Unusable(f"its schema is nested more than {MAX_DEPTH} deep")
        if not isinstance(schema, dict):
            return schema
        made = {key: self._keyword(key, value, depth + 1) for key, value in schema.items() if key != EXACT}
        types = schema.get("type")
        if types == "integer" or (isinstance(types, list) and "integer" in types and "number" not in types):
            made[EXACT] = True
        if not part and self._closes and not UNDECLARED & schema.keys() - {"unevaluatedItems"}:
            composed = schema.keys() & _COMPOSED
            if composed and self._modern and self._lists(schema, frozenset()):
                made["unevaluatedProperties"] = False
            elif not composed and (schema.get("properties") or schema.get("patternProperties")):
                made["additionalProperties"] = False
        return made

    def _keyword(self, key: str, value: Any, depth: int) -> Any:
        if key in _MAPS and isinstance(value, dict):
            return {name: self._made(each, depth, part=False) for name, each in value.items()}
        if key in _SHELVES or key in ("dependentSchemas", "dependencies"):
            if isinstance(value, dict):
                return {name: self._made(each, depth, part=True) for name, each in value.items()}
        elif isinstance(value, list) and (key in _PARTS or key in ("prefixItems", "items")):
            return [self._made(each, depth, part=key in _PARTS) for each in value]
        if key in _IN_PLACE:
            return self._made(value, depth, part=True)
        if key in _BELOW:
            return self._made(value, depth, part=False)
        return value

    def _lists(self, schema: Any, seen: frozenset[str]) -> bool:
        """Whether it says which members there are, itself or by what it refers to, and nothing there is open to others."""
        found = False
        for each in self._same_value(schema, seen):
            if UNDECLARED & each.keys() - {"unevaluatedItems"}:
                return False
            found = found or bool(each.get("properties") or each.get("patternProperties"))
        return found

    def _same_value(self, schema: Any, seen: frozenset[str]) -> Iterator[dict[str, Any]]:
        if not isinstance(schema, dict):
            return
        yield schema
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen |= {reference}
            target = pointed(self._schema, reference)
            if target is None:
                yield {"additionalProperties": True}  # an anchor or an $id: what is there is not looked for
            yield from self._same_value(target, seen)
        for key in _PARTS & schema.keys():
            for each in schema[key] if isinstance(schema[key], list) else ():
                yield from self._same_value(each, seen)


def pointed(root: Any, reference: str) -> Any:
    """What a JSON pointer (RFC 6901) in a fragment leads to; ``None`` for other references, and for nothing."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    found = root
    for step in reference[2:].split("/") if len(reference) > 1 else ():
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each)


def _patterns(schema: Any) -> Iterator[Any]:
    return (each for each in _objects(schema) if "pattern" in each or "patternProperties" in each)


def _names(schema: Any) -> Iterator[str]:
    for each in _objects(schema):
        for keyword in ("properties", "dependentSchemas"):
            named = each.get(keyword)
            if isinstance(named, dict):
                yield from (str(name) for name in named)
