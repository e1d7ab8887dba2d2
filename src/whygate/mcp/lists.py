"""Lists of tools, cut down to what the caller could use."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from whygate.mcp.envelope import Parts
from whygate.mcp.splices import items, name_of

PRIVATE: Final = msgspec.Raw(b'"private"')
TTL_MS: Final = 10_000
"""How long a client may keep a list: policies and pins change within seconds, and nobody tells it."""

Judge = Callable[[Sequence[bytes]], list[bool]]
"""For each definition as listed, whether it is as pinned."""


def filtered(
    result: Parts, visible: Callable[[str], bool], judge: Judge, *, modern: bool
) -> tuple[dict[str, Any], int] | None:
    """The result of a ``tools/list`` with the tools that are as pinned and that ``visible`` (told a tool's name) agrees to,
    and how many are not; ``None`` where the result can't be read, since what can't be read can't be filtered.

    Definitions, their order and the cursor stay as they came. In the modern era a filtered list must not be cached for
    others, nor for long (MCP 2026-07-28, server/utilities/caching), whether or not something was hidden from this caller.
    """
    tools = items(result["tools"]) if "tools" in result else None
    if tools is None:
        return None
    as_pinned = judge([bytes(tool) for tool in tools])
    kept = [
        tool
        for tool, pinned in zip(tools, as_pinned, strict=True)
        if pinned and (name := name_of(tool)) is not None and visible(name)
    ]
    made: dict[str, Any] = dict(result)
    made["tools"] = kept
    if modern:
        made["cacheScope"] = PRIVATE
        made["ttlMs"] = min(_ttl_ms(result), TTL_MS)
    return made, len(tools) - len(kept)


def _ttl_ms(result: Parts) -> int:
    try:
        return max(msgspec.json.decode(result["ttlMs"], type=int), 0)
    except (KeyError, msgspec.DecodeError):
        return 0
