"""The arguments of an operation as its OpenAPI document declares them: typed before any rule sees them.

Rules of this file:

1. A text has exactly one reading as what is declared, or the call is refused: ``01``, ``+1``, ``1e3`` for an integer,
   ``True`` for a boolean, a comma in an item of a list.
2. Nothing is rebuilt: what is forwarded are the bytes that were read here.
3. What is not declared is refused, in path, query and body.
4. A refusal names the place and the keyword, never a value, nor a name that only the caller used.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn
from urllib.parse import unquote

import msgspec

from whygate.core.reasons import Code
from whygate.core.schemas import UNDECLARED, Validator
from whygate.core.strict_json import MAX_SAFE_INTEGER, Unreadable, loads
from whygate.http.routes import MAX_QUERY_FIELDS, merge

Kind = Literal["string", "integer", "number", "boolean"]
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,15}")
_NUMBER: Final = re.compile(r"(?:0|-?[1-9][0-9]{0,15}|-?0(?=\.))(\.[0-9]{1,30})?")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter in path or query."""

    name: str
    kind: Kind
    """Of the value, or of each item."""
    many: bool = False
    exploded: bool = False
    """A list comes as repeated fields; else as one field with commas."""
    required: bool = False


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON body."""

    schema: Validator
    required: bool = False


class Signature:
    """What one operation takes. May be used in threads."""

    def __init__(
        self, path: tuple[Parameter, ...], query: tuple[Parameter, ...], values: Validator, body: Body | None
    ) -> None:
        """``values`` is asked about the map of all parameters that are there."""
        self._path = {one.name: one for one in path}
        self._query = {one.name: one for one in query}
        self._values = values
        self._body = body

    def read(self, path: Mapping[str, str], query: bytes, body: bytes, media: str) -> dict[str, Any]:
        """The arguments, typed as declared, or ``Unreadable`` (``args.schema_invalid`` and what ``routes`` raises).

        ``media`` is the body's type without parameters, in lower case.
        """
        values: dict[str, Any] = {name: _typed(text, self._path[name], "path") for name, text in path.items()}
        merge(values, self._fields(query))
        args = dict(values)
        found = self._read_body(body, media)
        for value in found:
            merge(args, value if isinstance(value, dict) else {"body": value})
        for one in self._query.values():
            if one.required and one.name not in values:
                _refuse(f"query {one.name}", "required")
        _ask(self._values, values, "parameters")
        if self._body is not None:
            for value in found:
                _ask(self._body.schema, value, "body")
        return args

    def _read_body(self, body: bytes, media: str) -> list[Any]:
        """The body's value, if there is a body: ``null`` is one, too."""
        if body and self._body is None:
            _refuse("body", "not declared")
        if not body:
            if self._body is not None and self._body.required:
                _refuse("body", "required")
            return []
        if media != "application/json" and not media.endswith("+json"):
            raise Unreadable(Code.REQUEST_MALFORMED, "the operation takes a JSON body")
        return [loads(body, forwarded=True)]

    def _fields(self, query: bytes) -> dict[str, Any]:
        found: dict[str, list[str]] = {}
        for name, text in _pairs(query):
            found.setdefault(name, []).append(text)
        made = {}
        for name, texts in found.items():
            declared = self._query.get(name)
            if declared is None:
                _refuse("query", "not declared")
            if len(texts) > 1 and not declared.exploded:
                raise Unreadable(Code.REQUEST_DUPLICATE_KEY, "the query has a field twice")
            if declared.many:
                items = texts if declared.exploded else texts[0].split(",")
                made[name] = [_item(text, declared) for text in items]
            else:
                made[name] = _typed(_decoded(texts[0]), declared, "query")
        return made


def _pairs(query: bytes) -> list[tuple[str, str]]:
    """Names, and values as on the wire. Raises ``Unreadable``."""
    if not query:
        return []
    try:
        text = query.decode("ascii")
    except UnicodeDecodeError:
        raise Unreadable(Code.REQUEST_MALFORMED, "the query can't be read") from None
    pieces = text.split("&")
    if ";" in text or _BROKEN_ESCAPE.search(text) or not all("=" in piece for piece in pieces):
        raise Unreadable(Code.REQUEST_MALFORMED, "the query can't be read in one way only")
    if len(pieces) > MAX_QUERY_FIELDS:
        raise Unreadable(Code.REQUEST_MALFORMED, f"the query has more than {MAX_QUERY_FIELDS} fields")
    split = [piece.partition("=") for piece in pieces]
    return [(_decoded(name), value) for name, _, value in split]


def _decoded(text: str) -> str:
    try:
        return unquote(text.replace("+", " "), errors="strict")
    except UnicodeDecodeError:
        raise Unreadable(Code.REQUEST_MALFORMED, "the query is not UTF-8") from None


def _item(text: str, declared: Parameter) -> Any:
    value = _decoded(text)
    # Some frameworks split after decoding, and some split repeated fields again.
    if not value or "," in value:
        _refuse(f"query {declared.name}", "one reading only: an empty item or a comma in one")
    return _typed(value, declared, "query")


def _typed(text: str, declared: Parameter, place: str) -> Any:
    kind = declared.kind
    if kind == "string":
        return text
    if kind == "boolean":
        if text in ("true", "false"):
            return text == "true"
    elif kind == "integer":
        if _INTEGER.fullmatch(text) is not None and abs(value := int(text)) <= MAX_SAFE_INTEGER:
            return value
    elif (match := _NUMBER.fullmatch(text)) is not None and (match[1] or abs(int(text)) <= MAX_SAFE_INTEGER):
        return float(text) if match[1] else int(text)
    return _refuse(f"{place} {declared.name}", "type")


def _ask(validator: Validator, value: Any, place: str) -> None:
    found = validator.wrong(value)
    if found is not None:
        where, keyword = found
        _refuse(f"{place} {where}".strip(), "not declared" if keyword in UNDECLARED else keyword)


def _refuse(place: str, keyword: str) -> NoReturn:
    raise Unreadable(Code.ARGS_SCHEMA_INVALID, f"{place}: {keyword}")
