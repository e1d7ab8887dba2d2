"""What compiles and is refused all the same: expressions whose cost the caller's arguments could drive up.

A condition runs while every other call waits, on lists and texts of the agent's choosing.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from whygate.core.policy.cel import Checked, Wrong, constant_fails
from whygate.core.policy.tree import Node

_CONSTANT_ARGUMENT: Final = {"matches": 1, "replace": 2}
"""Functions, and how many of their arguments must be constants: a pattern of the agent's choosing is compiled at each
evaluation, and a replacement of its choosing multiplies a text by another."""
_ZONED: Final = (
    *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
    *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
)
_PARSED: Final = frozenset({"matches", "timestamp", "duration", *_ZONED})
"""Functions that read a text: a constant that they can't read would fail on every call, so it fails at load."""


_SEARCHES: Final = frozenset(("contains", "indexOf", "lastIndexOf"))
_BUILDS: Final = frozenset(("split", "join", "format", "reverse", "replace", "quote", "strings.quote"))
"""Functions that make a text or a list as long as what they are given."""
MAX_GROWTH: Final = 64
"""How many texts of the caller's one expression may put together: each has up to 16 KiB, and a ``let`` that doubles what
another doubled has thousands of them in a dozen lines."""


def lint(
    checked: Checked, constants: frozenset[str] = frozenset(), growths: Mapping[str, int] = {}
) -> tuple[Wrong, ...]:
    """Everything refused in one expression. ``constants`` are ``let`` names known to be constant lists, ``growths`` what
    ``growth`` said of the others.
    """
    root = checked.tree
    found = (*_loops(root, constants, inside=False), *_calls(root), *_repeated(root, constants, frozenset()))
    if growth(checked, growths) > MAX_GROWTH:
        found = (*found, Wrong(root.offset, f"this puts together more than {MAX_GROWTH} values that the caller chose"))
    return found


def growth(checked: Checked, growths: Mapping[str, int] = {}) -> int:
    """How many values of the caller's are put together in one, at the most."""
    return _growth(checked.tree, growths)


def _growth(node: Node, growths: Mapping[str, int]) -> int:
    if node.kind == "const":
        return 0
    if node.kind == "ident":
        return growths.get(node.name, 1)
    below = [_growth(child, growths) for child in node.children]
    if node.kind in ("list", "struct") or (node.kind == "call" and (node.name == "_+_" or node.name in _BUILDS)):
        return max(1, sum(below))
    return max([1, *below])


def _repeated(node: Node, constants: frozenset[str], turning: frozenset[str]) -> Iterator[Wrong]:
    """What costs by the length of a text or list, and would be done again for each element of another. ``turning``: the
    names of the loops around it, over what the caller chose.
    """
    if node.kind == "loop" and not node.binds:
        over, start, *body = node.children
        yield from _repeated(over, constants, turning)
        fixed = _constant(over, constants)
        # Elements of a constant list are as good as constants, in there.
        inner, around = (
            (constants | {node.name}, turning) if fixed else (constants - {node.name}, turning | {node.name})
        )
        for child in (start, *body):
            yield from _repeated(child, inner, around)
        return
    if turning and node.kind == "call":
        arguments = node.children[1:] if node.member else node.children
        if node.name in _BUILDS:
            yield Wrong(
                node.offset, f"{node.name}() in a loop is refused: it would build a text or list for each element"
            )
        elif node.name in _SEARCHES and not all(_constant(value, constants) for value in arguments):
            yield Wrong(node.offset, f"what {node.name}() looks for in a loop must be constant")
        elif node.name == "matches" and not _mentions(node, turning):
            yield Wrong(node.offset, "matches() in a loop is about the element: ask the rest outside of it")
    for child in node.children:
        yield from _repeated(child, constants, turning)


def _mentions(node: Node, names: frozenset[str]) -> bool:
    return any(each.kind == "ident" and each.name in names for each in node.walk())


def is_constant_list(checked: Checked) -> bool:
    """Whether the expression is a list (of lists) of constants."""
    return _constant(checked.tree, frozenset()) and checked.tree.kind == "list"


def _loops(node: Node, constants: frozenset[str], *, inside: bool) -> Iterator[Wrong]:
    if node.kind != "loop" or node.binds:
        for child in node.children:
            yield from _loops(child, constants, inside=inside)
        return
    over, start, *body = node.children
    if start.kind == "list":
        # Each element copies the list built so far: 9,000 of them take seconds.
        yield Wrong(
            node.offset, "map() and filter() are refused (quadratic): say it with all(), exists() or exists_one()"
        )
    if inside and not _constant(over, constants):
        yield Wrong(node.offset, "a loop within a loop is refused, unless the inner one is over a constant list")
    yield from _loops(over, constants, inside=inside)
    for child in body:
        yield from _loops(child, constants, inside=True)


def _constant(node: Node, constants: frozenset[str]) -> bool:
    if node.kind == "ident":
        return node.name in constants
    return node.kind == "const" or (node.kind == "list" and all(_constant(child, constants) for child in node.children))


def _calls(root: Node) -> Iterator[Wrong]:
    for node in root.walk():
        if node.kind != "call":
            continue
        arguments = node.children[1:] if node.member else node.children
        if node.name in _CONSTANT_ARGUMENT:
            values = arguments[-_CONSTANT_ARGUMENT[node.name] :] if node.name == "matches" else arguments[:2]
            for value in values:
                if not value.is_text:
                    yield Wrong(node.offset, f"what {node.name}() looks for must be written in the rule as a text")
        for value in arguments:
            if node.name in _PARSED and value.is_text and constant_fails(node.name, value.name):
                yield Wrong(value.offset, f"{node.name}() can't read this text: it would fail on every call")
