"""Lists of resources, templates, prompts and tasks, cut down to what the caller could use. For tools there is ``lists``."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from whygate.mcp.envelope import Parts
from whygate.mcp.lists import PRIVATE
from whygate.mcp.splices import items


class _Entry(msgspec.Struct):
    """An entry of any of them, by what it goes by."""

    name: str = ""
    uri: str = ""
    template: str = msgspec.field(default="", name="uriTemplate")
    task: str = msgspec.field(default="", name="taskId")


_ENTRY: Final = msgspec.json.Decoder(_Entry)
_BY: Final[Mapping[str, Callable[[_Entry], str]]] = {
    "prompts": lambda entry: entry.name,
    "resources": lambda entry: entry.uri,
    "resourceTemplates": lambda entry: entry.template,
    "tasks": lambda entry: entry.task,
}


def names(result: Parts, member: str) -> list[str]:
    """By what the entries of a list go, as far as it can be read."""
    found = items(result[member]) if member in result else None
    return [] if found is None else [name for each in found if (name := _name(each, member))]


def filtered(
    result: Parts, member: str, visible: Callable[[str], bool], *, modern: bool
) -> tuple[dict[str, Any], int] | None:
    """A list with the entries that ``visible`` (told what an entry goes by) agrees to, and how many it did not; ``None``
    where it can't be read, since what can't be read can't be filtered. Caching as for tools (``lists.filtered``).
    """
    found = items(result[member]) if member in result else None
    if found is None:
        return None
    kept = [each for each in found if (name := _name(each, member)) and visible(name)]
    made: dict[str, Any] = dict(result)
    made[member] = kept
    if modern:
        made["cacheScope"] = PRIVATE
    return made, len(found) - len(kept)


def _name(raw: msgspec.Raw, member: str) -> str:
    try:
        return _BY[member](_ENTRY.decode(raw))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""
