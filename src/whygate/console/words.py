"""Words and shapes for pages. Pure; what came from calls is somebody else's text, and is shown as that."""

import datetime
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from whygate.core.instants import from_us

MAX_SHOWN: Final = 4000
"""Characters of a text in a list; on the approval page nothing is cut."""
_HIDDEN: Final = frozenset(("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"))
_KEPT: Final = frozenset("\n\t")


def safe(text: object, most: int = 0) -> str:
    """``text`` with everything visible that would not show, or would change how the rest shows (controls, marks of direction,
    invisible characters); cut at ``most`` with a note of how much is left out. Escaping is the templates'.
    """
    whole = str(text)
    kept = whole[:most] if most else whole
    made = "".join(
        char if char in _KEPT or unicodedata.category(char) not in _HIDDEN else f"⟨U+{ord(char):04X}⟩" for char in kept
    )
    return f"{made} … ({len(whole) - most} characters more)" if most and len(whole) > most else made


class Leaf(msgspec.Struct, frozen=True):
    """One value of the arguments, at its place."""

    path: str
    depth: int
    name: str
    kind: str
    text: str
    read: bool
    """Whether a rule looked at it."""
    narrow: bool
    """Whether the approver may lessen it."""


def leaves(
    value: Any,
    reads: Sequence[str] = (),
    narrow: Sequence[str] = (),
    path: str = "args",
    name: str = "",
    depth: int = 0,
) -> list[Leaf]:
    """Arguments laid out, one line each; nothing is left out."""
    read = any(path == each or path.startswith(each + ".") for each in reads)
    if isinstance(value, Mapping | list) and value:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        kind = "object" if isinstance(value, Mapping) else "list"
        made = [Leaf(path, depth, safe(name), kind, "", read, path in narrow)] if name else []
        for key, inner in pairs:
            made += leaves(inner, reads, narrow, f"{path}.{key}", str(key), depth + (1 if name else 0))
        return made
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return [Leaf(path, depth, safe(name), type(value).__name__, safe(text), read, path in narrow)]


def when(us: int) -> str:
    """A moment, for reading: UTC to the second."""
    return from_us(us).strftime("%Y-%m-%d %H:%M:%S UTC")


def moment(at: datetime.datetime) -> str:
    return at.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def lasting(seconds: int) -> str:
    """``10 minutes``."""
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            count = seconds // size
            return f"{count} {word}{'s' if count != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"


SHAPES: Final = {
    "permitted": "●",
    "elevated": "▲",
    "exception": "◆",
    "challenged": "◐",
    "blocked": "■",
    "error": "✕",
}
"""Of outcomes: told apart without their colours."""
DENIALS: Final = (
    "Not needed for this task.",
    "The arguments are wrong.",
    "Ask me first.",
    "This looks like an attack.",
)
