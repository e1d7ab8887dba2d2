"""Which operation a request is: paths that can be read in one way only, matched against the operator's templates.

Rules of this file:

1. A path that two servers could read differently is refused, not normalised: the upstream gets the bytes that were
   evaluated (RFC 3986 section 6; encoded slashes, dot segments, empty segments, backslashes, encoded percent signs).
2. So is a path that is almost another operation's: routers differ on case, on ``.json`` at the end and on blanks.
3. Names of fields are compared as loosely as the most lenient framework would (case, PHP's brackets and dots).
4. One template wins: the one with more literal segments, from the left. Two that can't be told apart are refused when
   the config is loaded.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from whygate.core.reasons import Code
from whygate.core.strict_json import Unreadable

_PARAMETER: Final = re.compile(r"^\{([A-Za-z_][A-Za-z0-9_.-]*)\}$")
_SUSPECT: Final = re.compile(
    rb"%(?:2f|5c|[01][0-9a-f]|7f|25[0-9a-f]{2})|%(?![0-9a-f]{2})|[\\;#?\x00-\x20\x7f-\xff]", re.IGNORECASE
)
_NEEDLESS: Final = re.compile(rb"%(?:2d|2e|3[0-9]|4[1-9a-f]|5[0-9a]|5f|6[1-9a-f]|7[0-9a]|7e)", re.IGNORECASE)
"""Letters, digits and the like, percent-encoded (RFC 3986 section 2.3)."""
MAX_QUERY_FIELDS: Final = 256
_METHOD_FIELD: Final = "_method"
"""Rails, Laravel, Symfony and Express' method-override take the request's method from it."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a plain HTTP tool."""

    name: str
    method: str
    template: str
    """``/invoices/{invoice_id}``: segments are literal or a parameter."""

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.template.strip("/").split("/")) if self.template.strip("/") else ()


class Router:
    """The operations of one tool."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        """Raises ``ValueError`` where two routes answer the same requests, or a template can't be read."""
        self._routes: dict[tuple[str, int], list[tuple[tuple[str, ...], tuple[str, ...], Route]]] = {}
        for route in routes:
            literals = tuple("" if _PARAMETER.match(part) else part for part in route.segments)
            if any("{" in part or "}" in part for part in literals):
                raise ValueError(f"{route.template}: a parameter fills a whole segment, as in /invoices/{{invoice_id}}")
            names = tuple(match.group(1) if (match := _PARAMETER.match(part)) else "" for part in route.segments)
            same = self._routes.setdefault((route.method, len(literals)), [])
            if any(literals == other for other, _, _ in same):
                raise ValueError(f"{route.method} {route.template} can't be told apart from another operation")
            same.append((literals, names, route))
        for same in self._routes.values():
            same.sort(key=lambda one: [not literal for literal in one[0]])

    def match(self, method: str, path: bytes) -> tuple[Route, dict[str, str]] | None:
        """The operation and its path parameters; ``None`` where there is none.

        ``path`` is as on the wire. Raises ``Unreadable`` (``request.path_ambiguous``) where it has two readings.
        """
        segments = segments_of(path)
        almost: list[tuple[str, ...]] = []
        for literals, names, route in self._routes.get((method, len(segments)), ()):
            if all(not want or want == got for want, got in zip(literals, segments, strict=True)):
                if any(_shadowed(other, literals, segments) for other in almost):
                    break
                if b"%" in path and _needless(path, literals):
                    raise _ambiguous("the name of an operation is percent-encoded, which some routers don't undo")
                return route, {name: got for name, got in zip(names, segments, strict=True) if name}
            if all(not want or _alike(want, got) for want, got in zip(literals, segments, strict=True)):
                almost.append(literals)
        if almost:
            raise _ambiguous("the path is almost that of an operation")
        return None

    @property
    def routes(self) -> list[Route]:
        """All operations, by name."""
        return sorted((route for same in self._routes.values() for _, _, route in same), key=lambda route: route.name)


def segments_of(path: bytes) -> tuple[str, ...]:
    """The decoded segments of a path as on the wire. Raises ``Unreadable`` where it has two readings."""
    if _SUSPECT.search(path) is not None or not path.startswith(b"/"):
        raise _ambiguous("the path holds encoded slashes, percent signs or control characters")
    if path == b"/":
        return ()
    parts = path[1:].split(b"/")
    try:
        decoded = tuple(unquote_to_bytes(part).decode("utf-8") for part in parts)
    except UnicodeDecodeError:
        raise _ambiguous("the path is not UTF-8") from None
    if any(part in ("", ".", "..") for part in decoded):
        raise _ambiguous("the path holds empty or dot segments")
    return decoded


def _needless(path: bytes, literals: tuple[str, ...]) -> bool:
    """Whether a literal segment came with letters encoded: a router that compares what is on the wire would not know it."""
    raw = path[1:].split(b"/")
    return any(want and _NEEDLESS.search(part) for want, part in zip(literals, raw, strict=True))


def _alike(want: str, got: str) -> bool:
    """Whether some router would take one for the other."""
    return want == got or want.casefold() == got.casefold().strip() or _stem(want) == _stem(got)


def _stem(segment: str) -> str:
    return segment.casefold().strip().partition(".")[0]


def _shadowed(other: tuple[str, ...], literals: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    """Whether what ``other`` almost names passes for a parameter in the template with ``literals``."""
    return any(not own and want and want != got for own, want, got in zip(literals, other, segments, strict=True))


def merge(args: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add arguments from another place. Raises ``Unreadable`` where two names are one for some framework."""
    known = {_folded(name): name for name in args}
    for name in more:
        if name.casefold() == _METHOD_FIELD:
            raise Unreadable(Code.REQUEST_PATH_AMBIGUOUS, "a field overrides the method")
        other = known.setdefault(_folded(name), name)
        # Two with brackets are members of one list or map: `filter[a]` and `filter[b]`.
        if other != name and not ("[" in other and "[" in name and other.casefold() != name.casefold()):
            raise Unreadable(Code.REQUEST_DUPLICATE_KEY, "two arguments have names that some frameworks take for one")
        if name in args:
            raise Unreadable(Code.REQUEST_DUPLICATE_KEY, "an argument comes from two of path, query and body")
    args.update(more)


def _folded(name: str) -> str:
    return name.casefold().strip().partition("[")[0].replace(".", "_").replace(" ", "_")


def query_of(query: bytes) -> dict[str, str]:
    """The fields of a query. Raises ``Unreadable`` where one is there twice or the query can't be read."""
    if not query:
        return {}
    if b";" in query:
        raise Unreadable(Code.REQUEST_MALFORMED, "the query holds a semicolon, which some take for a separator")
    try:
        fields = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError:
        raise Unreadable(Code.REQUEST_MALFORMED, "the query can't be read") from None
    made = dict(fields)
    if len(made) != len(fields):
        raise Unreadable(Code.REQUEST_DUPLICATE_KEY, "the query has a field twice")
    return made


def _ambiguous(note: str) -> Unreadable:
    return Unreadable(Code.REQUEST_PATH_AMBIGUOUS, note)
