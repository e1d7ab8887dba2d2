"""What a tool's input schema says of the types of its arguments, for checking rules at load.

Types serve checking only. At run time ``args`` is a map, and reading what is absent is an error: evaluated by type, an
absent number would read as 0, and a deny about it would silently never fire.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from cel_expr_python import cel

from whygate.core.schemas import pointed

_T: Final = cel.Type
DYN: Final = _T.DYN
_MAX_STEPS: Final = 2_000
"""Schemas looked at for one member: enough for honest ones, and an end for those that refer in circles."""

_SIMPLE: Final[dict[str, tuple[Any, ...]]] = {
    "string": (_T.STRING,),
    "boolean": (_T.BOOL,),
    "null": (_T.NULL,),
    # CEL's operators take numbers of one kind; values are compared across kinds when it runs.
    "integer": (_T.INT, _T.DOUBLE),
    "number": (_T.DOUBLE, _T.INT),
    "object": (_T.Map(_T.STRING, DYN),),
}
_OF_VALUE: Final = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", dict: "object"}

Types = tuple[Any, ...]
"""Any of these; ``(DYN,)`` where the schema does not say."""


class Shape:
    """Answers for one input schema."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._known: dict[tuple[str, ...], Types | None] = {}

    def of(self, path: tuple[str, ...]) -> Types | None:
        """The types of what ``path`` leads to; ``None`` where the schema has no such member and allows none."""
        if path not in self._known:
            at: list[Any] | None = [self._root]
            for name in path:
                at = self._member(at, name)
                if not at:
                    break
            self._known[path] = None if at is None else self._types(at)
        return self._known[path]

    def names(self, path: tuple[str, ...]) -> list[str]:
        """The members that are declared there, for suggestions."""
        at: list[Any] | None = [self._root]
        for name in path:
            at = self._member(at, name)
        found = {str(name) for each in self._parts(at or []) for name in _map(each.get("properties"))}
        return sorted(found)

    def _member(self, schemas: list[Any] | None, name: str) -> list[Any] | None:
        """The schemas of a member; ``None`` where there can be no such member, none where nothing is said of it."""
        found: list[Any] = []
        open_, lists = False, False
        parts = list(self._parts(schemas or []))
        for each in parts:
            if name in _map(each.get("properties")):
                found.append(each["properties"][name])
                continue
            matching = [below for pattern, below in _map(each.get("patternProperties")).items() if _fits(pattern, name)]
            found += matching
            lists = lists or bool(each.get("properties") or each.get("patternProperties"))
            more = each.get("additionalProperties", each.get("unevaluatedProperties"))
            if more is not None and more is not False and not matching:
                open_ = True
                if isinstance(more, dict):
                    found.append(more)
        if found:
            return found
        # As the gateway reads schemas: what lists its members has no others, unless it says so itself.
        closed = any(each.get("additionalProperties", each.get("unevaluatedProperties")) is False for each in parts)
        return [] if open_ or not (lists or closed or any(each.get("properties") for each in parts)) else None

    def _types(self, schemas: list[Any]) -> Types:
        found: dict[str, Types] = {}
        for each in self._parts(schemas):
            said = each.get("type")
            names = [said] if isinstance(said, str) else said if isinstance(said, list) else None
            if names is None:
                values = (
                    each["enum"] if isinstance(each.get("enum"), list) else [each["const"]] if "const" in each else []
                )
                names = [_OF_VALUE.get(type(value), "array") for value in values]
                if not names and not each.keys() & {"$ref", "allOf", "anyOf", "oneOf"}:
                    return (DYN,)
            for name in names:
                found[name] = self._array(each) if name == "array" else _SIMPLE.get(name, (DYN,))
        if "number" in found:
            found.pop("integer", None)
        return tuple(one for types in found.values() for one in types) or (DYN,)

    def _array(self, schema: dict[str, Any]) -> Types:
        items = schema.get("items")
        kinds = self._types([items]) if isinstance(items, dict) and "prefixItems" not in schema else (DYN,)
        return (_T.List(kinds[0] if len(kinds) == 1 else DYN),)

    def _parts(self, schemas: list[Any]) -> Iterator[dict[str, Any]]:
        """Everything that is said of the same value: what is referred to, and every alternative."""
        waiting, seen = list(schemas), 0
        followed: set[str] = set()
        while waiting and seen < _MAX_STEPS:
            each = waiting.pop(0)
            seen += 1
            if not isinstance(each, dict):
                continue
            yield each
            reference = each.get("$ref")
            if isinstance(reference, str) and reference not in followed:
                followed.add(reference)
                target = pointed(self._root, reference)
                # An anchor, or the $id of a part: what is there is not looked for, so anything may be.
                waiting.append({"additionalProperties": True} if target is None else target)
            for keyword in ("allOf", "anyOf", "oneOf"):
                if isinstance(each.get(keyword), list):
                    waiting += each[keyword]


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _fits(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True
