"""JSON that can be read in one way only.

Parsers differ in what they make of duplicate keys, huge integers, lone surrogates and NaN; whoever decides on one
reading while the upstream acts on another has decided nothing. So what is ambiguous is refused (RFC 8259 sections 4,
6, 8.2; RFC 7493). Some parsers match keys without regard to case (Go's encoding/json, .NET's web defaults) and take the
last of two: for them ``amount`` and ``Amount`` are one key twice.
"""

import json
import re
from typing import Any, Final, NoReturn

from whygate.core.reasons import Code

MAX_SAFE_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 128
"""Nesting of a body. What comes after us recurses in C and Rust, where a deeper one ends the process (measured: 100,000)."""
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class Unreadable(ValueError):
    """The bytes are not JSON that everybody reads alike. ``code`` says which kind of wrong."""

    def __init__(self, code: Code, note: str) -> None:
        super().__init__(note)
        self.code = code
        self.note = note


def loads(data: bytes, *, forwarded: bool = False) -> Any:
    """Parse ``data``. Raises ``Unreadable``; never another error, whatever the bytes.

    ``forwarded``: somebody else reads these bytes after us, so keys that differ only in case are refused as well.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable(Code.REQUEST_MALFORMED, "the body is not UTF-8") from None
    try:
        value = (_FOR_OTHERS if forwarded else _DECODER).decode(text)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable(Code.REQUEST_MALFORMED, "the body is nested too deeply") from None
    except ValueError:
        raise Unreadable(Code.REQUEST_MALFORMED, "the body is not JSON") from None
    if "\\u" in text and _SURROGATE_ESCAPE.search(text) is not None:
        _refuse_lone_surrogates(value)
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _refuse_depth(value)
    return value


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += [one for one in each.values() if isinstance(one, dict | list)]
            elif isinstance(each, list):
                below += [one for one in each if isinstance(one, dict | list)]
        if not below:
            return
        level = below
    raise Unreadable(Code.REQUEST_MALFORMED, "the body is nested too deeply")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unreadable(Code.REQUEST_DUPLICATE_KEY, "an object in the body has a key twice")
    return made


def _pairs_for_others(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = _pairs(pairs)
    keys = "".join(made)
    # Where folding changes nothing, no two keys can differ in case alone: one look at most objects instead of one a key.
    if keys != keys.casefold() and len({key.casefold() for key in made}) != len(made):
        raise Unreadable(Code.REQUEST_DUPLICATE_KEY, "an object in the body has keys that differ only in case")
    return made


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(value := int(digits)) > MAX_SAFE_INTEGER:
        raise Unreadable(Code.REQUEST_MALFORMED, "an integer in the body is beyond 2^53-1")
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise Unreadable(Code.REQUEST_MALFORMED, "a number in the body is beyond what a double holds")
    return value


def _constant(name: str) -> NoReturn:
    raise Unreadable(Code.REQUEST_MALFORMED, f"{name} in the body is not JSON")


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Unreadable(Code.REQUEST_MALFORMED, "a string in the body holds a lone surrogate") from None
    except RecursionError:
        raise Unreadable(Code.REQUEST_MALFORMED, "the body is nested too deeply") from None


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_number, parse_constant=_constant
)
_FOR_OTHERS: Final = json.JSONDecoder(
    object_pairs_hook=_pairs_for_others, parse_int=_integer, parse_float=_number, parse_constant=_constant
)
