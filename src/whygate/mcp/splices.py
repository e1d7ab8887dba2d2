"""The few named places where a message is not passed on as it came.

Rules of this file:

1. Pure. Every member that is not named here keeps its bytes: numbers, escapes and the order of keys of arguments,
   results and schemas arrive as they were sent.
2. Upward: ``_meta.traceparent`` is ours, ``tracestate`` and ``baggage`` end here (they are the caller's word, and
   would reach the upstream's traces as if they were ours), and so do our own keys.
3. Downward: ``result._meta["dev.whygate/decision"]`` is ours alone; what an upstream put there is replaced.
"""

from typing import Any, Final

import msgspec

from whygate.mcp.envelope import OURS, Envelope, Parts

DECISION_KEY: Final = f"{OURS}decision"
_PARTS: Final = msgspec.json.Decoder(Parts)
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ENCODE: Final = msgspec.json.Encoder().encode
_NOT_UP: Final = ("traceparent", "tracestate", "baggage")


class Message(msgspec.Struct):
    """A message from an upstream, opened no further than needed."""

    id: int | str | float | None = None
    method: str = ""
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")
    params: msgspec.Raw = msgspec.Raw(b"")


class _Error(msgspec.Struct):
    code: int | float = 0


class _Named(msgspec.Struct):
    name: str


_MESSAGE: Final = msgspec.json.Decoder(Message)
_ERROR: Final = msgspec.json.Decoder(_Error)
_NAMED: Final = msgspec.json.Decoder(_Named)


def opened(data: bytes) -> Message | None:
    """The JSON-RPC message in ``data``; ``None`` where there is none."""
    try:
        return _MESSAGE.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def error_code(error: msgspec.Raw) -> str:
    """The code of a JSON-RPC error as text; empty where it has none."""
    try:
        return str(int(_ERROR.decode(error).code))
    except (msgspec.DecodeError, ValueError, OverflowError):
        return ""


def upward(envelope: Envelope, traceparent: str) -> bytes:
    """The request as the upstream gets it."""
    parts: dict[str, Any] = dict(envelope.parts)
    params: dict[str, Any] = _PARTS.decode(parts["params"]) if "params" in parts else {}
    meta: dict[str, Any] = _PARTS.decode(params["_meta"]) if "_meta" in params else {}
    for key in [key for key in meta if (plain := key.strip().casefold()) in _NOT_UP or plain.startswith(OURS)]:
        del meta[key]
    if traceparent:
        meta["traceparent"] = traceparent
    if meta or "_meta" in params:
        params["_meta"] = meta
        parts["params"] = params
    return _ENCODE(parts)


def members(raw: msgspec.Raw | bytes) -> Parts | None:
    """The members of an object as they came; ``None`` where it is no object."""
    try:
        return _PARTS.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def items(raw: msgspec.Raw) -> list[msgspec.Raw] | None:
    """The items of an array as they came; ``None`` where it is no array."""
    try:
        return _LIST.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def name_of(raw: msgspec.Raw) -> str | None:
    """The ``name`` of a definition; ``None`` where it has none that can be read."""
    try:
        return _NAMED.decode(raw).name
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def downward(data: bytes, result: dict[str, Any], decision: bytes) -> bytes:
    """The response in ``data`` with ``result`` in place of its own, and the decision in the result's ``_meta``."""
    whole: dict[str, Any] = members(data) or {}
    meta: dict[str, Any] = (members(result["_meta"]) if "_meta" in result else None) or {}
    for key in [key for key in meta if key.startswith(OURS)]:
        del meta[key]
    meta[DECISION_KEY] = msgspec.Raw(decision)
    result["_meta"] = meta
    whole["result"] = result
    return _ENCODE(whole)
