"""Lists of tools, cut down to what the caller could use."""

from collections.abc import Callable
from typing import Any

import msgspec

from whygate.mcp.envelope import Parts
from whygate.mcp.splices import items, name_of

PRIVATE = msgspec.Raw(b'"private"')


def names(result: Parts) -> list[str]:
    """The names of all tools in the result of a ``tools/list``, as far as it can be read."""
    tools = items(result["tools"]) if "tools" in result else None
    return [] if tools is None else [name for tool in tools if (name := name_of(tool)) is not None]


def filtered(result: Parts, visible: Callable[[str], bool], *, modern: bool) -> tuple[dict[str, Any], int] | None:
    """The result of a ``tools/list`` with the tools that ``visible`` (told a tool's name) agrees to, and how many it
    did not; ``None`` where the result can't be read, since what can't be read can't be filtered.

    Definitions, their order and the cursor stay as they came. In the modern era a filtered list must not be cached for
    others (MCP 2026-07-28, server/utilities/caching), so the cache scope becomes private whether or not something was
    hidden from this caller.
    """
    tools = items(result["tools"]) if "tools" in result else None
    if tools is None:
        return None
    kept = [tool for tool in tools if (name := name_of(tool)) is not None and visible(name)]
    made: dict[str, Any] = dict(result)
    made["tools"] = kept
    if modern:
        made["cacheScope"] = PRIVATE
    return made, len(tools) - len(kept)
