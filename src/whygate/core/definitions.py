"""Definitions of tools: one canonical form, its digest, and whether two say the same.

Rules of this file:

1. Everything that a definition says counts, whether this version knows the member or not: a model reads all of it.
2. The digest can be made by anybody: SHA-256 over JSON with sorted keys, no blanks, ASCII only (in Python
   ``json.dumps(d, sort_keys=True, separators=(",", ":"))``); numbers without a fraction are written without one.
3. A definition that can be read in two ways (a key twice, NaN) is none.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from whygate.core.ids import sha256_digest

NAME: Final = re.compile(r"[A-Za-z0-9_.:/\-]{1,128}")
"""What a tool's name looks like. Others can neither be called nor be shown."""
MAX_BYTES: Final = 256 * 1024
"""Of one definition. A model's context is no larger by much."""

LATER: Final = frozenset(("title", "annotations", "outputSchema", "icons", "execution", "_meta"))
"""Members that came with later revisions of MCP (2025-03-26 to 2025-11-25). A server leaves them out when it speaks an
earlier one, so where they are absent nothing was changed; where they are there, they are as pinned."""

_INTEGRAL_BELOW: Final = 2.0**53


class Unreadable(ValueError):
    """What a server lists as a definition is none. Says why, in our own words."""


def read(data: bytes) -> dict[str, Any]:
    """The definition in ``data``. Raises ``Unreadable``."""
    if len(data) > MAX_BYTES:
        raise Unreadable(f"it is above {MAX_BYTES} bytes")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant)
    except Unreadable:
        raise
    except (ValueError, RecursionError):
        raise Unreadable("it is not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise Unreadable("it has no name")
    if NAME.fullmatch(value["name"]) is None:
        raise Unreadable("its name is none that a tool can have")
    return value


def canonical(value: Any) -> bytes:
    """Rule 2. Raises ``Unreadable`` for what is nested too deeply."""
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (RecursionError, ValueError):
        raise Unreadable("it is nested too deeply") from None


def digest(definition: Mapping[str, Any]) -> str:
    """``sha256:`` and 64 hex digits."""
    return sha256_digest(canonical(definition))


def fits(seen: Mapping[str, Any], pinned: Mapping[str, Any]) -> bool:
    """Whether ``seen`` says nothing but what was pinned: see ``LATER``."""
    if pinned.keys() - seen.keys() - LATER:
        return False
    return all(key in pinned and canonical(seen[key]) == canonical(pinned[key]) for key in seen)


def joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a server says of one tool in two revisions, as one definition that both fit; ``None`` where they disagree."""
    made = {**other, **one}
    return made if fits(one, made) and fits(other, made) else None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unreadable("it has a key twice")
    return made


def _constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is no JSON")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _INTEGRAL_BELOW:
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


# --- what can't be seen ---

_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""Printable by Unicode's tables and yet nothing on a screen: fillers, joiners, variation selectors, tags."""


def invisible(char: str) -> bool:
    """Whether a character shows nothing, or turns others about: controls, formats, separators, fillers."""
    return not char.isprintable() or _INVISIBLE.match(char) is not None


def shown(text: str) -> str:
    """``text`` with everything invisible spelt out as JSON spells it: what a reviewer sees is what is there."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelt(char) if invisible(char) else char for char in text)


def _spelt(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) != 0x7F else "\\u007f"


def pretty(value: Any) -> str:
    """``value`` as JSON for people: indented, keys sorted, letters of all languages, nothing invisible in it."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return "\n".join(shown(line) for line in text.split("\n"))
