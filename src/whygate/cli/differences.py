"""What a reviewer is shown of definitions that are to be pinned: what is new, what is gone, and what changed, line by line.

A definition is a stranger's text. Everything invisible in it is spelt out, here as in the file of pins.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from whygate.cli.screen import put
from whygate.cli.words import counted
from whygate.core import definitions
from whygate.core.pins import Pin

WIDE: Final = 110
"""Columns at which a description is broken for showing; a diff of one line of 3,000 characters shows nothing."""
_WORST: Final = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True}
"""What a server that says nothing is taken for (MCP, server/tools, "Tool Annotations")."""
_SAYS: Final = {
    ("readOnlyHint", True): "reads only",
    ("destructiveHint", True): "may destroy",
    ("destructiveHint", False): "only adds",
    ("idempotentHint", True): "may be repeated",
    ("openWorldHint", True): "reaches out",
    ("openWorldHint", False): "stays inside",
}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One tool that is not as it is pinned."""

    tool: str
    event: str
    """``new``, ``changed`` or ``gone``."""
    lines: tuple[str, ...]
    """Of a changed one: the difference as unified lines; of others: the definition."""
    members: tuple[str, ...]
    """Which members of the definition differ."""
    says: str
    """What the server says that the tool does, in words: its own word, and no more."""
    digest: str
    pinned: str


def differences(server: str, pinned: Mapping[str, Pin], found: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """In the order new, changed, gone; each by name."""
    new = [_made(server, name, "new", {}, found[name]) for name in sorted(found.keys() - pinned.keys())]
    changed = [
        _made(server, name, "changed", pinned[name].definition, found[name])
        for name in sorted(found.keys() & pinned.keys())
        if definitions.digest(found[name]) != pinned[name].digest
    ]
    gone = [_made(server, name, "gone", pinned[name].definition, {}) for name in sorted(pinned.keys() - found.keys())]
    return [*new, *changed, *gone]


def _made(server: str, name: str, event: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    before, after = lines_of(old), lines_of(new)
    lines = list(difflib.unified_diff(before, after, n=2, lineterm=""))[2:] if event == "changed" else before or after
    members = [key for key in sorted({*old, *new}) if _differs(key, old, new)]
    return Difference(
        tool=f"{server}/{name}",
        event=event,
        lines=tuple(lines),
        members=tuple(definitions.shown(member) for member in members),
        says=says(new or old),
        digest=definitions.digest(new) if new else "",
        pinned=definitions.digest(old) if old else "",
    )


def _differs(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return (key in old) != (key in new) or definitions.canonical(old[key]) != definitions.canonical(new[key])


def says(definition: Mapping[str, Any]) -> str:
    """Its annotations in words. What is absent counts as the worst."""
    given = definition.get("annotations")
    hints = _WORST | (given if isinstance(given, dict) else {})
    reads = hints["readOnlyHint"] is True
    words = [_SAYS.get((key, hints[key] is True)) for key in _WORST if not (reads and key == "destructiveHint")]
    return ", ".join(word for word in words if word)


def lines_of(definition: Mapping[str, Any]) -> list[str]:
    """A definition as lines: its description as text, then every value with the way to it. Nothing is left out."""
    lines = []
    for key in ("description", *sorted(definition.keys() - {"description", "name"})):
        if key not in definition:
            continue
        value = definition[key]
        if key == "description" and isinstance(value, str):
            lines += [f"description: {piece}" for piece in _broken(value)]
        else:
            lines += _leaves(definitions.shown(key), value)
    return lines


def _leaves(way: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from _leaves(f"{way}.{definitions.shown(key)}", value[key])
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for number, each in enumerate(value):
            yield from _leaves(f"{way}[{number}]", each)
    elif isinstance(value, str):
        yield from (f"{way}: {piece}" for piece in _broken(value))
    else:
        yield f"{way}: {definitions.shown(json.dumps(value, ensure_ascii=False))}"


def _broken(text: str) -> Iterator[str]:
    """Lines of a description, long ones broken at blanks, nothing invisible in them."""
    for line in text.replace("\r\n", "\n").split("\n"):
        left = definitions.shown(line)
        while len(left) > WIDE:
            at = left.rfind(" ", 1, WIDE) + 1 or WIDE
            yield left[:at]
            left = left[at:]
        yield left


def put_differences(console: Console, server: str, found: list[Difference], wrong: Mapping[str, str]) -> None:
    """Print them for a person."""
    for name, why in sorted(wrong.items()):
        refused = Text.assemble(("can't be pinned ", "bold red"), f"{server}/{definitions.shown(name)[:80]}: {why}")
        put(console, refused, "    ", "")
    for each in found:
        style = {"new": "green", "changed": "yellow", "gone": "red"}[each.event]
        told = f"  its server says: {each.says}" if each.event != "gone" else "  no longer listed"
        if each.event == "changed":
            told = f"  in {', '.join(each.members)};{told.removeprefix(' ')}"
        line = Text.assemble((f"{each.event:<8}", f"bold {style}"), (each.tool, "bold"), (told, "dim"))
        console.print(line, soft_wrap=True)
        if each.event != "gone":
            for shown in each.lines:
                colour = {"+": "green", "-": "red", "@": "dim"}.get(shown[:1], "") if each.event == "changed" else ""
                console.print(Text("    " + shown, colour), soft_wrap=True)
    if not found and not wrong:
        put(console, Text(f"{server}: as pinned."))
    elif found:
        counts = {event: sum(each.event == event for each in found) for event in ("new", "changed", "gone")}
        words = ", ".join(f"{number} {event}" for event, number in counts.items() if number)
        put(console, Text(f"{server}: {counted(len(found), 'difference')} ({words}).", "bold"))
