"""Which arguments of a call rules read, and a view of a call that holds these and no others.

Rules of this file:

1. What no rule reads costs nothing, however large it is: a tool that writes files is called with megabytes.
2. What a rule reads is bounded before the rule is asked, because the agent chose it, and conditions run while other
   calls wait: loops over 256 elements take tens of microseconds, over 9,000 milliseconds.
3. The view answers every condition as the whole would: what is there is there, what is no object is none.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from whygate.core.policy.tree import Node
from whygate.core.reasons import Code

MAX_ITEMS: Final = 256
MAX_TEXT_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 8
MAX_TOTAL_BYTES: Final = 256 * 1024
_SCALAR_BYTES: Final = 8


class Part(Enum):
    """What of a value is read."""

    THERE = "there"
    """Only whether it is there."""
    VALUE = "value"


_VALUE: Final = Part.VALUE
_ABSENT: Final = object()
Wanted = Mapping[str, "Part | Wanted"] | Part
"""What is read of an object: member by member, or all of it."""
NOTHING: Final[Wanted] = {}
_BY_INDEX: Final = frozenset(("_[_]", "_?._", "_[?_]"))


class Unseen(Exception):
    """Arguments that no rule may be asked about. ``code`` and ``note`` say why."""

    def __init__(self, code: Code, note: str) -> None:
        super().__init__(note)
        self.code = code
        self.note = note


# --- what is read ---


def read_by(root: Node) -> Wanted:
    """What an expression reads of ``args``."""
    wanted: Wanted = NOTHING
    waiting = [root]
    while waiting:
        node = waiting.pop()
        path = _path(node)
        if path is None:
            waiting += node.children
        else:
            wanted = merged(wanted, _at(path, Part.THERE if node.tests else Part.VALUE))
    return wanted


def merged(one: Wanted, other: Wanted) -> Wanted:
    """What is read by either."""
    if Part.VALUE in (one, other):
        return Part.VALUE
    if isinstance(one, Part) or isinstance(other, Part):
        return other if isinstance(one, Part) else one
    return {
        key: merged(one[key], other[key]) if key in one and key in other else one.get(key, other.get(key, Part.VALUE))
        for key in (*one, *(key for key in other if key not in one))
    }


def all_of(wanted: Iterable[Wanted]) -> Wanted:
    made: Wanted = NOTHING
    for each in wanted:
        made = merged(made, each)
    return made


def paths_of(wanted: Wanted, above: str = "args") -> tuple[str, ...]:
    """The places of arguments that are read, as dotted paths; ``args`` alone for all of them."""
    if isinstance(wanted, Part):
        return (above,)
    return tuple(path for name, below in sorted(wanted.items()) for path in paths_of(below, f"{above}.{name}"))


def _path(node: Node) -> tuple[str, ...] | None:
    """The members that lead from ``args`` to what ``node`` is; ``None`` where it is anything else."""
    steps: list[str] = []
    while node.kind != "ident":
        if node.kind == "select":
            steps.append(node.name)
        elif node.kind == "call" and node.name in _BY_INDEX and len(node.children) == 2 and node.children[1].is_text:
            steps.append(node.children[1].name)
        else:
            return None
        node = node.children[0]
    return tuple(reversed(steps)) if node.name == "args" else None


def _at(path: tuple[str, ...], part: Part) -> Wanted:
    made: Wanted = part
    for step in reversed(path):
        made = {step: made}
    return made


# --- the view ---


def view(args: Mapping[str, Any], wanted: Wanted) -> Any:
    """``args`` as far as they are read. Raises ``Unseen``; never recurses below ``MAX_DEPTH``."""
    made, total = _viewed(args, wanted, 1)
    if total > MAX_TOTAL_BYTES:
        raise _too_large(f"is above {MAX_TOTAL_BYTES} bytes")
    return made


def _viewed(value: Any, wanted: Wanted, depth: int) -> tuple[Any, int]:
    if wanted is Part.VALUE:
        return value, _size(value, depth)
    if wanted is Part.THERE:
        return True, _SCALAR_BYTES
    if type(value) is not dict:
        # Something else than the object that a rule takes it for: its kind is all that a rule can find out.
        return (type(value)() if type(value) in (str, list) else value), _SCALAR_BYTES
    made, total = {}, _SCALAR_BYTES
    for key, below in wanted.items():
        each = value.get(key, _ABSENT)
        if each is _ABSENT:
            continue
        kind = type(each) if below is _VALUE else None
        # What most of them are, without a call for each.
        if kind is str and len(each) <= MAX_TEXT_BYTES and each.isascii():
            total += len(each) + _SCALAR_BYTES
        elif kind is int:
            total += _SCALAR_BYTES
        else:
            each, size = _viewed(each, below, depth + 1)
            total += size
        made[key] = each
    return made, total


def _size(value: Any, depth: int) -> int:
    kind = type(value)
    if kind is str:
        return _size_of_text(value)
    if kind is int or kind is bool or kind is float or value is None:
        return _SCALAR_BYTES
    if kind is not dict and kind is not list:
        raise Unseen(Code.REQUEST_MALFORMED, f"the arguments hold a {kind.__name__}, which is not JSON")
    if depth > MAX_DEPTH:
        raise _too_large(f"is nested more than {MAX_DEPTH} deep")
    if len(value) > MAX_ITEMS:
        raise _too_large(f"holds a list or object of more than {MAX_ITEMS} entries")
    total = _SCALAR_BYTES
    for each in value:
        if kind is dict:
            if type(each) is not str:
                raise Unseen(Code.REQUEST_MALFORMED, "the arguments hold a key that is no text")
            total += _size_of_text(each) + _size(value[each], depth + 1)
        else:
            total += _size(each, depth + 1)
        if total > MAX_TOTAL_BYTES:
            raise _too_large(f"is above {MAX_TOTAL_BYTES} bytes")
    return total


def _size_of_text(text: str) -> int:
    size = len(text)
    if size <= MAX_TEXT_BYTES and not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise Unseen(Code.REQUEST_MALFORMED, "the arguments hold a lone surrogate") from None
    if size > MAX_TEXT_BYTES:
        raise _too_large(f"holds a text above {MAX_TEXT_BYTES} bytes")
    return size + _SCALAR_BYTES


def _too_large(what: str) -> Unseen:
    return Unseen(Code.ARGS_TOO_LARGE, f"what rules read of the arguments {what}")
