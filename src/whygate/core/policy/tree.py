"""The checked syntax tree of a CEL expression, as the compiler serialises it.

The compiler gives its tree only as a protobuf message (``cel.expr.CheckedExpr``, published as
https://github.com/google/cel-spec/blob/master/proto/cel/expr/checked.proto) and ships no classes to read it. Ten of
its fields are needed here; reading these from the wire is shorter than carrying generated code for all of them.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _LOOP = 3, 4, 5, 6, 7, 8, 9  # Expr.expr_kind
_CONST_STRING: Final = 6  # Constant.string_value


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One node. ``kind`` is ``const``, ``ident``, ``select``, ``call``, ``list``, ``struct`` or ``loop``."""

    kind: str
    offset: int
    """Character of the source that it stands at."""
    name: str = ""
    """Of an ident, a field or a function; the text of a string constant."""
    is_text: bool = False
    """A string constant."""
    children: tuple["Node", ...] = ()
    """Operands: a call's target comes first; a loop's range and start value come first, its body after them."""
    member: bool = False
    """A call with a target."""
    tests: bool = False
    """A select that only asks whether the field is there (``has()``)."""

    @property
    def binds(self) -> bool:
        """``cel.bind``: the compiler writes it as a loop over an empty list."""
        return self.kind == "loop" and self.name == "#unused"

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def read(serialised: bytes) -> Node:
    """The tree of a compiled expression. Raises ``ValueError`` for bytes that are no such tree."""
    try:
        checked = _only(serialised, 2)  # google.protobuf.Any.value
        offsets = {}
        for number, value in _fields(_only(checked, 5)):  # source_info
            if number == 4:  # positions
                entry = dict(_fields(_bytes(value)))
                offsets[entry.get(1, 0)] = entry.get(2, 0)
        return _expr(_only(checked, 4), offsets)  # expr
    except (IndexError, KeyError, TypeError, UnicodeDecodeError) as wrong:
        raise ValueError("not a checked expression") from wrong


def _expr(data: bytes, offsets: dict[int | bytes, int | bytes]) -> Node:
    number, body, kind = 0, b"", 0
    for field, value in _fields(data):
        if field == 2:
            number = _int(value)
        else:
            kind, body = field, _bytes(value)
    offset = _int(offsets.get(number, 0))
    parts = list(_fields(body))
    if kind == _CONST:
        text = next((_bytes(v).decode() for f, v in parts if f == _CONST_STRING), None)
        return Node(kind="const", offset=offset, name=text or "", is_text=text is not None)
    if kind == _IDENT:
        return Node(kind="ident", offset=offset, name=_name(parts, 1))
    if kind == _SELECT:
        below = _below(parts, (1,), offsets)
        return Node(kind="select", offset=offset, name=_name(parts, 2), children=below, tests=(3, 1) in parts)
    if kind == _CALL:
        target = _below(parts, (1,), offsets)
        children = target + _below(parts, (3,), offsets)
        return Node(kind="call", offset=offset, name=_name(parts, 2), children=children, member=bool(target))
    if kind == _LIST:
        return Node(kind="list", offset=offset, children=_below(parts, (1,), offsets))
    if kind == _STRUCT:
        entries = [part for f, v in parts if f == 2 for part in _fields(_bytes(v))]
        return Node(kind="struct", offset=offset, children=_below(entries, (3, 4), offsets))
    if kind == _LOOP:
        children = tuple(child for field in (2, 4, 5, 6, 7) for child in _below(parts, (field,), offsets))
        return Node(kind="loop", offset=offset, name=_name(parts, 1), children=children)
    raise ValueError("a kind of node that is not known")


_Parts = list[tuple[int, int | bytes]]


def _below(parts: _Parts, wanted: tuple[int, ...], offsets: dict[int | bytes, int | bytes]) -> tuple[Node, ...]:
    return tuple(_expr(_bytes(value), offsets) for field, value in parts if field in wanted)


def _name(parts: _Parts, wanted: int) -> str:
    return next((_bytes(value).decode() for field, value in parts if field == wanted), "")


def _only(data: bytes, wanted: int) -> bytes:
    return next((_bytes(value) for field, value in _fields(data) if field == wanted), b"")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError("a number where bytes belong")


def _int(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise TypeError("bytes where a number belongs")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a message (https://protobuf.dev/programming-guides/encoding/)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(data, at)
        if at + size > len(data):
            raise IndexError("cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
