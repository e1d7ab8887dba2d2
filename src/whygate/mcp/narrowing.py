"""Arguments that an approver changed, in the place of the caller's: in the body, and in the headers that mirror them."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whygate.mcp import splices
from whygate.mcp.mirrors import Mirrors
from whygate.mcp.turns import Turn

_PARAM: Final = b"mcp-param-"
_encode: Final = msgspec.json.Encoder().encode


def narrow(turn: Turn, args: Mapping[str, Any], schema: Any) -> None:
    """Put ``args`` into the request that is sent on (2026-07-28, basic/transports: headers mirror what the body says)."""
    envelope = turn.envelope
    envelope.params = {**envelope.params, "arguments": dict(args)}
    raw: dict[str, Any] = dict(splices.members(envelope.parts["params"]) or {})
    raw["arguments"] = args
    envelope.parts["params"] = msgspec.Raw(_encode(raw))
    exchange, heads = turn.exchange, turn.heads
    if not any(name.startswith(_PARAM) for name, _ in exchange.headers):
        return
    mirrors = Mirrors()
    name = str(envelope.params.get("name"))
    mirrors.learn(msgspec.Raw(_encode({"tools": [{"name": name, "inputSchema": schema or {}}]})), first=True)
    fresh = [(key.lower().encode(), value.encode("latin-1")) for key, value in mirrors.headers(name, args)]
    exchange.headers = [each for each in exchange.headers if not each[0].startswith(_PARAM)] + fresh
    heads.found = {key: value for key, value in heads.found.items() if not key.startswith(_PARAM)} | dict(fresh)
