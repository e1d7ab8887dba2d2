"""Many servers under one address: names, lists and results, translated between them and their clients. Pure.

Rules of this file:

1. A name is ``server__tool``, cut at the first ``__``. That is unambiguous, because no server's name contains ``__`` or
   ends with ``_`` (the configuration refuses such names).
2. What is not translated keeps its bytes: schemas, descriptions, annotations, arguments, contents.
3. A server's word about itself (its name, its instructions) is not passed on as if it were ours.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from whygate import __version__
from whygate.core.calls import Standing, Tool
from whygate.mcp import splices
from whygate.mcp.conversation import PROTOCOL
from whygate.mcp.envelope import CAPABILITIES_KEY, Envelope, Parts

SEPARATOR: Final = "__"
LOG_LEVEL_KEY: Final = f"{PROTOCOL}logLevel"
SERVER_KEY: Final = f"{PROTOCOL}serverInfo"
ASKABLE: Final[Mapping[str, str]] = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
"""What a server may ask of a client, with the capability that the client must have declared."""
OURSELVES: Final = {"name": "whygate", "version": __version__}
PARTLY_TTL_MS: Final = 5_000
"""A list from which a server had to be left out is asked for again soon."""

_TOOL: Final = re.compile(r"[A-Za-z0-9_.:/\-]{1,128}")
_KEPT_OF_CLIENTS: Final = frozenset(("elicitation", "sampling", "roots"))
_encode: Final = msgspec.json.Encoder().encode
_OURSELVES: Final = msgspec.Raw(_encode(OURSELVES))


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One server's part of the list, cut down to what the caller may see."""

    server: str
    tools: Sequence[msgspec.Raw]
    ttl_ms: int
    kept: bool = False
    """The server said so some time ago."""


def split(name: str) -> tuple[str, str]:
    """Server and tool of a merged name; the server is empty where the name has none."""
    server, found, tool = name.partition(SEPARATOR)
    return (server, tool) if found else ("", name)


def nobodys(name: str) -> Tool | None:
    """A tool of no server, to be decided on like one that a server does not have, so that nobody can tell the two apart;
    ``None`` where the name has no tool's shape. No rule but one for everything can permit it.
    """
    return (
        Tool(server="", name=name, type="mcp", known=False, standing=Standing.UNPINNED)
        if _TOOL.fullmatch(name)
        else None
    )


def merged(lists: Sequence[Listed], *, modern: bool, whole: bool) -> dict[str, Any]:
    """The result of ``tools/list``: one list after the other, each in its server's order, with merged names."""
    result: dict[str, Any] = {"tools": [_renamed(each.server, tool) for each in lists for tool in each.tools]}
    if modern:
        told = [each.ttl_ms for each in lists]
        result |= {"resultType": "complete", "cacheScope": "private", "_meta": _encode_raw({SERVER_KEY: OURSELVES})}
        result["ttlMs"] = min(told if whole else [*told, PARTLY_TTL_MS], default=PARTLY_TTL_MS)
    return result


def _renamed(server: str, definition: msgspec.Raw) -> msgspec.Raw:
    parts: dict[str, Any] = dict(splices.members(definition) or {})
    parts["name"] = f"{server}{SEPARATOR}{splices.name_of(definition)}"
    return msgspec.Raw(_encode(parts))


def upward(envelope: Envelope, tool: str, traceparent: str, *, modern: bool) -> dict[str, Any]:
    """The params of a ``tools/call`` for a server of the era ``modern``, with the tool's own name."""
    whole = splices.members(splices.upward(envelope, traceparent)) or {}
    params: dict[str, Any] = dict(splices.members(whole["params"]) or {}) if "params" in whole else {}
    params["name"] = tool
    meta: dict[str, Any] = dict(splices.members(params.pop("_meta")) or {}) if "_meta" in params else {}
    if not modern or not envelope.modern:
        meta = {key: value for key, value in meta.items() if not key.startswith(PROTOCOL)}
    else:
        meta[CAPABILITIES_KEY] = _encode_raw(shown(envelope.meta.get(CAPABILITIES_KEY)))
    if meta:
        params["_meta"] = meta
    return params


def shown(capabilities: Any) -> dict[str, Any]:
    """What servers are told of a client's capabilities: those that work through here. Extensions (tasks) don't: their
    methods are none of this address.
    """
    if not isinstance(capabilities, Mapping):
        return {}
    return {key: value for key, value in capabilities.items() if key in _KEPT_OF_CLIENTS}


def downward(data: bytes, *, modern: bool) -> bytes:
    """A response as a client of the era ``modern`` expects it, from a server of either."""
    whole: dict[str, Any] = dict(splices.members(data) or {})
    parts = splices.members(whole["result"]) if "result" in whole else None
    if parts is None:
        return data
    result: dict[str, Any] = dict(parts)
    meta: dict[str, Any] = dict((splices.members(parts["_meta"]) if "_meta" in parts else None) or {})
    if modern:
        result.setdefault("resultType", "complete")
        meta[SERVER_KEY] = _OURSELVES
    else:
        result.pop("resultType", None)
        meta.pop(SERVER_KEY, None)
    result["_meta"] = meta
    whole["result"] = result
    return _encode(whole)


def with_id(data: bytes, identity: int | str | None) -> bytes:
    """The same message under another id."""
    whole: dict[str, Any] = dict(splices.members(data) or {})
    whole["id"] = identity
    return _encode(whole)


def kind(result: Parts) -> str:
    """``resultType``; ``complete`` where a server says nothing (a legacy one), empty for what can't be read."""
    if "resultType" not in result:
        return "complete"
    try:
        return msgspec.json.decode(result["resultType"], type=str)
    except msgspec.DecodeError:
        return ""


def wants_logs(envelope: Envelope) -> bool:
    """Whether a client wants ``notifications/message``: in the modern era it says so with each request."""
    return not envelope.modern or LOG_LEVEL_KEY in envelope.meta


def _encode_raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))
