"""Readers that are not ours, for what a tool got: of two keys one takes the last, one the first, one does not look at case."""

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

Pairs = list[tuple[str, Any]]


def last_wins(body: bytes) -> Any:
    """As Python, JavaScript and most others read."""
    return json.loads(body)


def first_wins(body: bytes) -> Any:
    """As some C and Erlang parsers read."""
    return json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


def caseless(body: bytes) -> Any:
    """As Go's encoding/json and .NET's web defaults match members, the last one winning."""
    return json.loads(body, object_pairs_hook=lambda pairs: {key.casefold(): value for key, value in pairs})


def folded(value: Any) -> Any:
    """The value with all its keys as ``caseless`` has them."""
    if isinstance(value, dict):
        return {key.casefold(): folded(inner) for key, inner in value.items()}
    return [folded(inner) for inner in value] if isinstance(value, list) else value


READERS: Final[tuple[tuple[str, Callable[[bytes], Any], Callable[[Any], Any]], ...]] = (
    ("last wins", last_wins, lambda value: value),
    ("first wins", first_wins, lambda value: value),
    ("caseless", caseless, folded),
)


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type all the way down: ``1`` is neither ``True`` nor ``1.0``."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def operation(method: str, url: str) -> tuple[str, dict[str, str]]:
    """The tool's own router: id and path parameters of the operation that a request is; empty where it is none."""
    split = urlsplit(url)
    parts = split.path.split("/")[1:]
    if split.hostname == "typed.tools.test":
        return _typed(method, parts[1:] if parts[:1] == ["api"] else [])
    match method, parts:
        case "GET" | "HEAD", ["invoices", one]:
            return "billing/invoice_" + method.lower(), {"invoice_id": unquote(one)}
        case "POST", ["refunds"]:
            return "billing/refund", {}
        case "GET", ["customers", "export"]:
            return "billing/customer_export", {}
        case "PUT" | "PATCH" | "DELETE", ["notes", one, "text"]:
            return "billing/note_" + method.lower(), {"note_id": unquote(one)}
    return "", {}


def _typed(method: str, parts: list[str]) -> tuple[str, dict[str, str]]:
    match method, parts:
        case "GET", ["invoices"]:
            return "typed/invoice_list", {}
        case "GET", ["invoices", one]:
            return "typed/invoice_get", {"number": unquote(one)}
        case "POST", ["invoices", one, "refund"]:
            return "typed/refund", {"number": unquote(one)}
    return "", {}


def fields(text: str) -> dict[str, list[str]]:
    """Every field of a query or form, with all its values."""
    made: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)):
        made.setdefault(name, []).append(value)
    return made
