"""Bending what is valid: JSON as a tree that may hold a key twice, paths, queries and headers.

Few bends at a time: what is wrong in ten ways is refused for the first of them, and tests nothing else.
"""

import json
from random import Random
from typing import Any, Final

from tests.fuzz.odd import HEADERS, NUMBERS, PATH_BITS, QUERY_BITS, STRINGS, Verbatim

UNBENT: Final = 0.4
"""So many stay valid: without calls that pass, nothing is said about what the tool gets."""


class Obj(list[tuple[Any, Any]]):
    """An object: its members in order, the same key any number of times."""


def obj(value: Any) -> Any:
    """``value`` as a tree that can be bent; copied."""
    if isinstance(value, dict):
        return Obj((key, obj(inner)) for key, inner in value.items())
    return [obj(inner) for inner in value] if isinstance(value, list) else value


def read(text: str) -> Any:
    return obj(json.loads(text))


def bent(chance: Random, tree: Any) -> Any:
    """``tree`` with none to three bends in it."""
    if chance.random() < UNBENT:
        return tree
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        tree = _bend(chance, tree)
    return tree


def _places(tree: Any) -> list[tuple[Any, int]]:
    """Every value in the tree: its container and index."""
    found: list[tuple[Any, int]] = []
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, Obj):
            found += [(node, index) for index in range(len(node))]
            left += [value for _, value in node]
        elif isinstance(node, list):
            found += [(node, index) for index in range(len(node))]
            left += node
    return found


def _bend(chance: Random, tree: Any) -> Any:
    places = _places(tree)
    if not places or chance.random() < 0.04:
        return chance.choice(([tree], [tree, tree], Obj([("jsonrpc", "2.0")]), None, 1, "x", [], Obj()))
    where, index = chance.choice(places)
    if not isinstance(where, Obj):
        where[index] = _value(chance, where[index])
        return tree
    key, value = where[index]
    how = chance.randrange(12)
    if how == 0:
        where.insert(chance.randrange(len(where) + 1), (key, _value(chance, value)))
    elif how == 1:
        where.insert(chance.randrange(len(where) + 1), (respelt(chance, key), _value(chance, value)))
    elif how == 2:
        where[index] = (respelt(chance, key), value)
    elif how == 3:
        del where[index]
    elif how == 4:
        where.append((chance.choice(STRINGS), _value(chance, value)))
    elif how == 5:
        where.append((chance.choice(_MEMBERS), _value(chance, value)))
    elif how == 6:
        chance.shuffle(where)
    else:
        where[index] = (key, _value(chance, value))
    return tree


_MEMBERS: Final = (
    "name", "arguments", "_meta", "method", "params", "id", "result", "error", "jsonrpc", "uri", "taskId", "cursor",
    "inputResponses", "requestState", "task", "amount_cents", "note", "__proto__", "constructor", "$ref", "",
)  # fmt: skip


def respelt(chance: Random, key: Any) -> Any:
    """The key in a spelling that some reader takes for the same."""
    if not isinstance(key, str) or isinstance(key, Verbatim) or not key:
        return "Name"
    ways = (
        key.upper(),
        key.capitalize(),
        key.swapcase(),
        key.replace("s", "\u017f"),
        key.replace("k", "\u212a"),
        key.replace("i", "\u0131"),
        key + " ",
        " " + key,
        key + "\u0000",
        key + "\u200b",
        Verbatim('"' + "".join(f"\\u{ord(letter):04x}" for letter in key) + '"'),
        Verbatim('"' + f"\\u{ord(key[0]):04X}" + json.dumps(key[1:])[1:]),
    )
    return chance.choice(ways)


def _value(chance: Random, old: Any) -> Any:
    how = chance.randrange(10)
    if how < 3:
        return chance.choice(STRINGS)
    if how < 6:
        return chance.choice(NUMBERS)
    if how == 6:
        depth = chance.choice((2, 7, 8, 9, 40, 300, 990, 3_000))
        return Verbatim('{"a":' * depth + "1" + "}" * depth if chance.random() < 0.5 else "[" * depth + "]" * depth)
    if how == 7:
        return chance.choice((None, True, False, [], Obj(), [None] * 300, "x" * 17_000, Obj([("name", "danger")])))
    if how == 8:
        return [old, old]
    return chance.choice((str(old), [old], Obj([("value", old)]), old))


def written(chance: Random, tree: Any) -> bytes:
    """The tree as bytes; sometimes not quite JSON."""
    pretty = chance.random() < 0.1
    text = _text(tree, ", " if pretty else ",", ":\n" if pretty else ":")
    data = text.encode("utf-8", "surrogatepass")
    how = chance.random()
    if how < 0.94:
        return data
    at = chance.randrange(len(data) + 1)
    ways = (
        data[:at],
        data[:at] + bytes((chance.randrange(256),)) + data[at:],
        data[:at] + bytes((chance.randrange(256),)) + data[at + 1 :],
        data + data,
        b"\xef\xbb\xbf" + data,
        text.encode("utf-16", "surrogatepass"),
        data + b"\x00",
        data + b"\n{}",
        b"\r\n\t " + data + b" \r\n",
        data.replace(b":", b": /* */"),
        data.replace(b"}", b",}", 1),
        data.replace(b'"', b"'"),
        b"",
        b"a=1&b=2",
    )
    return chance.choice(ways)


def _text(tree: Any, comma: str, colon: str) -> str:
    if isinstance(tree, Verbatim):
        return tree
    if isinstance(tree, Obj):
        return "{" + comma.join(f"{_text(k, comma, colon)}{colon}{_text(v, comma, colon)}" for k, v in tree) + "}"
    if isinstance(tree, list):
        return "[" + comma.join(_text(inner, comma, colon) for inner in tree) + "]"
    return json.dumps(tree, ensure_ascii=not (isinstance(tree, str) and len(tree) % 2))


def heads(
    chance: Random, headers: list[tuple[str, str]], credentials: tuple[tuple[str, str], ...]
) -> list[tuple[bytes, bytes]]:
    """The headers as on the wire, one of them perhaps bent."""
    made = [(name.encode(), value.encode("utf-8", "surrogatepass")) for name, value in headers]
    how = chance.random()
    if how < 0.7:
        return made
    index = chance.randrange(len(made))
    name, value = made[index]
    if how < 0.73:
        del made[index]
    elif how < 0.75:
        made.append((name, value))
    elif how < 0.78:
        made.append((name.replace(b"-", b"_"), value))
    elif how < 0.81:
        made[index] = (name, chance.choice((b"", value.upper(), value + b" ", value + b",x", b"\xff" + value, b"x")))
    elif how < 0.83:
        made.append((b"authorization", chance.choice(credentials)[1].encode()))
    else:
        for _ in range(chance.choice((1, 1, 2))):
            made.insert(chance.randrange(len(made) + 1), chance.choice(HEADERS))
    return made


def path(chance: Random, whole: bytes) -> bytes:
    """A path as some router would read it, and another would not."""
    least = whole.find(b"/", 1) + 1 if chance.random() < 0.9 else 1
    for _ in range(chance.choice((1, 1, 2))):
        at = chance.randrange(min(least, len(whole)), len(whole) + 1)
        how = chance.randrange(6)
        if how == 0:
            whole = whole[:at] + chance.choice(PATH_BITS) + whole[at:]
        elif how == 1:
            parts = whole.split(b"/")
            parts.insert(chance.randrange(min(2, len(parts)), len(parts) + 1), chance.choice(PATH_BITS))
            whole = b"/".join(parts)
        elif how == 2:
            whole += chance.choice(PATH_BITS)
        elif how == 3:
            odd = chance.choice((b"//", b"/./", b"%2f", b"\\", b"/x/../"))
            whole = whole[:least] + whole[least:].replace(b"/", odd, 1)
        elif how == 4:
            letter = whole[at - 1 : at] or b"/"
            whole = whole[: max(at - 1, 0)] + chance.choice((b"%%%02x" % letter[0], letter.swapcase())) + whole[at:]
        else:
            whole = chance.choice((whole.upper(), whole + b"/", whole[:at], whole + b".json", whole + b"%20"))
    return whole


def fields(chance: Random, query: bytes) -> bytes:
    """A query, or a form, with one thing odd about it."""
    parts = query.split(b"&") if query else []
    how = chance.randrange(6)
    if how == 0 and parts:
        parts.append(chance.choice(parts))
    elif how == 1 and parts:
        parts.append(chance.choice(parts).swapcase())
    elif how == 2 and parts:
        index = chance.randrange(len(parts))
        parts[index] = parts[index].replace(b"=", chance.choice((b"", b"==", b"%3d", b"[]=", b"[a]=", b".x=")))
    elif how == 3 and parts:
        index = chance.randrange(len(parts))
        parts[index] += chance.choice(QUERY_BITS)
    else:
        parts.append(chance.choice(QUERY_BITS))
    return chance.choice((b"&", b"&", b"&", b"&&", b";")).join(parts)
