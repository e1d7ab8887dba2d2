"""Arguments that a tool wants repeated in headers (``x-mcp-header`` in its schema, ``Mcp-Param-*`` in the request).

Rules of this file:

1. Pure. Needed only where the gateway itself is the HTTP server, that is before stdio servers: an HTTP server behind it gets the
   headers as they came, and compares them itself (MCP 2026-07-28, basic/transports, "Server Validation").
2. Nothing is decided by these headers. They are compared so that whoever routed by them on the way here was not told a tale.
3. What is expected is what the server's own list says, the list that the client made its headers from.
4. A schema with an annotation where none may stand asks for nothing: clients have to leave such a tool alone.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from whygate.mcp.envelope import decoded

_PREFIX: Final = "mcp-param-"
_KEY: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TYPES: Final = frozenset(("string", "integer", "boolean"))
_DATA: Final = frozenset(("const", "default", "enum", "examples"))
"""Keywords whose values are data, not schemas."""
_BY_NAME: Final = frozenset(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"))
"""Keywords whose members are schemas under names of somebody's choosing."""
_PLAIN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_WHOLE: Final = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0+)?")


class Mirror(msgspec.Struct, frozen=True):
    """One argument and its header."""

    header: str
    path: tuple[str, ...]
    integer: bool


class _Tool(msgspec.Struct):
    name: str
    schema: Any = msgspec.field(default=None, name="inputSchema")


class _Tools(msgspec.Struct):
    tools: list[_Tool]


_LIST: Final = msgspec.json.Decoder(_Tools)


class Mirrors:
    """What the tools of one process want repeated, as far as it has told."""

    def __init__(self) -> None:
        self._wanted: dict[str, tuple[Mirror, ...]] = {}

    def learn(self, result: msgspec.Raw, *, first: bool) -> None:
        """Take in the result of a ``tools/list``. The ``first`` page takes the place of what was known."""
        try:
            tools = _LIST.decode(result).tools
        except (msgspec.DecodeError, RecursionError):
            return
        if first:
            self._wanted.clear()
        for tool in tools:
            self._wanted.pop(tool.name, None)
            if found := mirrors(tool.schema):
                self._wanted[tool.name] = found

    def mismatch(self, params: Mapping[str, Any], headers: list[tuple[str, str]]) -> str:
        """What is wrong with the headers of this ``tools/call``; empty where nothing is. They were looked through for
        duplicates before.
        """
        wanted = self._wanted.get(params.get("name", ""))
        if not wanted:
            return ""
        found = {name.lower(): value for name, value in headers}
        arguments = params.get("arguments")
        return next((wrong for mirror in wanted if (wrong := _wrong(mirror, arguments, found))), "")

    def headers(self, name: str, arguments: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """The headers for a call of this tool, where the gateway itself is the client."""
        made = ((mirror.header, _rendered(_value(mirror, arguments))) for mirror in self._wanted.get(name, ()))
        return tuple((header, encoded(value)) for header, value in made if value is not None)


def mirrors(schema: Any) -> tuple[Mirror, ...]:
    """The arguments that ``schema`` wants repeated; none where one of its annotations is not as it should be."""
    found: dict[str, Mirror] = {}
    for path, node in _positions(schema):
        if _KEY not in node:
            continue
        token, kind = node[_KEY], node.get("type")
        if not path or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return ()
        if not isinstance(kind, str) or kind not in _TYPES:
            return ()
        header = _PREFIX + token.lower()
        if header in found:
            return ()
        found[header] = Mirror(header, path, kind == "integer")
    return tuple(found.values())


def _positions(schema: Any) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Every schema in ``schema``, with its way from the top where that leads through ``properties`` alone."""
    left: list[tuple[tuple[str, ...] | None, Any]] = [((), schema)]
    while left:
        path, node = left.pop()
        if isinstance(node, list):
            left.extend((None, each) for each in node)
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, value in node.items():
            if keyword in _BY_NAME and isinstance(value, dict):
                straight = keyword == "properties" and path is not None
                left.extend(((*(path or ()), name) if straight else None, each) for name, each in value.items())
            elif keyword not in _DATA:
                left.append((None, value))


def _wrong(mirror: Mirror, arguments: Any, headers: Mapping[str, str]) -> str:
    raw = headers.get(mirror.header)
    said = _rendered(_value(mirror, arguments))
    if said is None:
        return "" if raw is None else f"header {mirror.header} repeats an argument that is not there"
    if raw is None:
        return f"header {mirror.header} is missing"
    heard = decoded(raw)
    if heard is not None and (heard == said or (mirror.integer and _number(heard) == _number(said) is not None)):
        return ""
    return f"header {mirror.header} differs from the body"


def _value(mirror: Mirror, arguments: Any) -> Any:
    value = arguments
    for key in mirror.path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def encoded(value: str) -> str:
    """A header's value that ``envelope.decoded`` reads as ``value``: as it is where it can be (2026-07-28,
    basic/transports, "Value Encoding").
    """
    if _PLAIN.fullmatch(value) and not value.startswith("=?"):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def _rendered(value: Any) -> str | None:
    """As a client puts it into a header; ``None`` for what has no such form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _number(text: str) -> str | None:
    """The integer in ``text``, ``42.0`` being one too; ``None`` where there is none."""
    match = _WHOLE.fullmatch(text)
    return None if match is None else match[1]
