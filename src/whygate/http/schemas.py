"""Schemas of an OpenAPI document as JSON Schema 2020-12, made to say no.

Rules of this file:

1. A keyword that is not understood makes the schema unusable: a bound that is passed over is a bound that is not kept.
2. Only ``#/components/schemas/<name>`` is followed. Nothing is ever fetched, and what contains itself without end is
   refused.
3. What lists its members has no others, unless ``additionalProperties`` says so.
4. ``1.0`` is no integer: a rule that asks ``type(args.x) == int`` would not see it.
5. Patterns are matched in linear time; one that needs more (look-around, back references) is unusable.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from whygate.core.schemas import EXACT, Unusable, Validator


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REF: Final = re.compile(r"#/components/schemas/([A-Za-z0-9._-]+)")
_PLAIN: Final = _words(
    "type enum const multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern maxItems"
    " minItems uniqueItems maxContains minContains maxProperties minProperties required dependentRequired"
)
_BELOW: Final = _words("items contains additionalProperties propertyNames unevaluatedItems unevaluatedProperties")
_IN_PLACE: Final = frozenset(("not", "if", "then", "else"))
_IN_PLACE_LISTS: Final = frozenset(("allOf", "anyOf", "oneOf"))
_BELOW_MAPS: Final = frozenset(("properties", "patternProperties"))
_SAYS_NOTHING: Final = _words(
    "title description default example examples deprecated xml externalDocs discriminator format readOnly writeOnly"
    " nullable contentEncoding contentMediaType $comment"
)


class Schemas:
    """The components of one document, and what is made of them."""

    def __init__(self, components: Mapping[str, Any], *, old: bool) -> None:
        """``old``: of OpenAPI 3.0, where ``nullable`` counts and ``$ref`` stands alone."""
        self._components = components
        self._old = old

    def validator(self, schema: Any) -> "Validator":
        """Raises ``Unusable``."""
        return Validator(self.translated(schema))

    def translated(self, schema: Any) -> dict[str, Any]:
        """The schema with everything that it refers to, as one. Raises ``Unusable``."""
        walk = _Walk(self._resolve, old=self._old)
        root = walk.made(schema, part=False, owner="")
        while missing := walk.wanted - walk.defs.keys():
            for name in missing:
                walk.defs[name] = walk.made(self._resolve(name), part=True, owner=name)
        _refuse_circles(walk.edges)
        made = root if isinstance(root, dict) else {"allOf": [root]}
        return {**made, "$defs": walk.defs} if walk.defs else made

    def kinds(self, schema: Any, seen: frozenset[str] = frozenset()) -> set[str]:
        """The JSON types that a schema names, but ``null``; empty where it names none. Raises ``Unusable``."""
        if not isinstance(schema, dict):
            return set()
        found: set[str] = set()
        if "$ref" in schema:
            name = named(schema["$ref"])
            if name in seen:
                raise Unusable(f"the schema {name} contains itself")
            found |= self.kinds(self._resolve(name), seen | {name})
            if self._old:
                return found
        said = schema.get("type", [])
        found |= {said} if isinstance(said, str) else {each for each in said if isinstance(each, str)}
        for keyword in sorted(_IN_PLACE_LISTS & schema.keys()):
            for part in schema[keyword] if isinstance(schema[keyword], list) else ():
                found |= self.kinds(part, seen)
        return found - {"null"}

    def items(self, schema: Any) -> Any:
        """The schema of an array's items, looked for as ``kinds`` looks for types."""
        if isinstance(schema, dict) and "items" not in schema:
            if "$ref" in schema:
                return self.items(self._resolve(named(schema["$ref"])))
            parts = [part for keyword in _IN_PLACE_LISTS for part in schema.get(keyword, ())]
            return next((found for part in parts if (found := self.items(part))), {})
        return schema.get("items", {}) if isinstance(schema, dict) else {}

    def _resolve(self, name: str) -> Any:
        if name not in self._components:
            raise Unusable(f"#/components/schemas/{name} is not there")
        return self._components[name]


class _Walk:
    """One pass over a schema, that gathers which components it needs."""

    def __init__(self, resolve: Callable[[str], Any], *, old: bool) -> None:
        self._resolve = resolve
        self._old = old
        self.defs: dict[str, Any] = {}
        self.wanted: set[str] = set()
        self.edges: dict[str, set[str]] = {}
        """Which component is applied to the same value as which other."""

    def made(self, schema: Any, *, part: bool, owner: str) -> Any:
        """``part``: it describes the same value as the schema around it, which is the one that is closed.
        ``owner``: the component whose own value it describes; empty for none.
        """
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise Unusable("a schema is no object")
        made: dict[str, Any] = {}
        if "$ref" in schema:
            name = named(schema["$ref"])
            self.wanted.add(name)
            if owner:
                self.edges.setdefault(owner, set()).add(name)
            made["$ref"] = f"#/$defs/{name}"
        if "$ref" not in schema or not self._old:
            for keyword, value in schema.items():
                self._keyword(made, keyword, value, owner)
            self._bounds(made, schema)
        if not part and self._lists(schema, frozenset()):
            composed = made.keys() & (_IN_PLACE | _IN_PLACE_LISTS | {"$ref", "dependentSchemas"})
            made.setdefault("unevaluatedProperties" if composed else "additionalProperties", False)
        return made

    def _keyword(self, made: dict[str, Any], keyword: str, value: Any, owner: str) -> None:
        if keyword in _PLAIN:
            made[keyword] = value
        elif keyword in _BELOW:
            made[keyword] = self.made(value, part=False, owner="")
        elif keyword in _IN_PLACE:
            made[keyword] = self.made(value, part=True, owner=owner)
        elif keyword in _IN_PLACE_LISTS:
            made[keyword] = [self.made(each, part=True, owner=owner) for each in _list(keyword, value)]
        elif keyword == "prefixItems":
            made[keyword] = [self.made(each, part=False, owner="") for each in _list(keyword, value)]
        elif keyword in _BELOW_MAPS:
            made[keyword] = {
                name: self.made(each, part=False, owner="")
                for name, each in _map(keyword, value).items()
                if keyword != "properties" or not self._read_only(each)
            }
        elif keyword == "dependentSchemas":
            made[keyword] = {
                name: self.made(each, part=True, owner=owner) for name, each in _map(keyword, value).items()
            }
        elif keyword != "$ref" and keyword not in _SAYS_NOTHING and not keyword.startswith("x-"):
            raise Unusable(f"the keyword {keyword[:40]} is not understood")

    def _bounds(self, made: dict[str, Any], schema: dict[str, Any]) -> None:
        """What OpenAPI says otherwise than JSON Schema, and rule 4."""
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and bound in made:
                made[exclusive] = made.pop(bound)
        hidden = {
            name for name, each in _map("properties", schema.get("properties", {})).items() if self._read_only(each)
        }
        if hidden and isinstance(made.get("required"), list):
            made["required"] = [name for name in made["required"] if name not in hidden]
        types = made.get("type")
        if types == "integer" or (isinstance(types, list) and "integer" in types and "number" not in types):
            made[EXACT] = True
        if self._old and schema.get("nullable") is True and isinstance(types, str):
            made["type"] = [types, "null"]
            if isinstance(made.get("enum"), list) and None not in made["enum"]:
                made["enum"] = [*made["enum"], None]

    def _read_only(self, schema: Any) -> bool:
        """Such members are the tool's to give, not the caller's: to send one is to send what is not declared."""
        if isinstance(schema, dict) and "$ref" in schema:
            schema = {**_map("a schema", self._resolve(named(schema["$ref"]))), **({} if self._old else schema)}
        return isinstance(schema, dict) and schema.get("readOnly") is True

    def _lists(self, schema: Any, seen: frozenset[str]) -> bool:
        """Whether it says which members there are. What does not is a map of anything."""
        if not isinstance(schema, dict):
            return False
        if schema.get("properties") or schema.get("patternProperties"):
            return True
        if "$ref" in schema:
            name = named(schema["$ref"])
            return name not in seen and self._lists(self._resolve(name), seen | {name})
        parts = [part for keyword in _IN_PLACE_LISTS for part in _list(keyword, schema.get(keyword, []))]
        return any(self._lists(part, seen) for part in parts)


def named(reference: Any) -> str:
    """The component that a ``$ref`` names. Raises ``Unusable`` for whatever leads elsewhere."""
    match = _REF.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise Unusable("a $ref leads elsewhere than to #/components/schemas/…")
    return match[1]


def _refuse_circles(edges: Mapping[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise Unusable(f"the schema {name} contains itself without end")
        if name not in done:
            for each in sorted(edges.get(name, ())):
                visit(each, (*above, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def _list(keyword: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unusable(f"{keyword} is no list")
    return value


def _map(keyword: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise Unusable(f"{keyword} is no map of names")
    return value
