"""The gateway's own tools, as an MCP server like the others: ``/mcp/whygate``, and ``whygate__…`` at ``/mcp``.

An agent asks for an elevation, how a question stands, and why a call of its own was decided as it was. Every caller that the
gateway knows may use them; what comes of it, policy and people say. Answers tell an agent what an agent may be told.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

import msgspec

from whygate import __version__
from whygate.core.calls import Standing, Tier, Tool, ToolClass
from whygate.core.identity import Principal
from whygate.core.schemas import Validator, of_tool
from whygate.mcp.backend import Outgoing
from whygate.mcp.envelope import INVALID_PARAMS, METHOD_NOT_FOUND, MODERN

OWN: Final = "whygate"
"""The server's name; no server of the configuration may have it."""
_TEXT: Final = {"type": "string", "maxLength": 1000}
_ID: Final = {"type": "string", "maxLength": 64}
_HINTS: Final = {"readOnlyHint": True, "destructiveHint": False, "openWorldHint": False}
DEFINITIONS: Final[tuple[Mapping[str, Any], ...]] = (
    {
        "name": "request_elevation",
        "title": "Ask for an elevation",
        "description": "Ask for a just-in-time elevation when a call was answered with jit.grant_required. Name the "
        "entitlement, why it is needed and for how long. It is given, refused, or a person is asked: then ask for its "
        "status, and make the call again once it is approved.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "arguments": {
                    "type": "object",
                    "description": "Values that the arguments of the calls will have, by path; texts may use *.",
                },
                "entitlement": {**_TEXT, "maxLength": 64, "minLength": 1},
                "minutes": {"type": "integer", "minimum": 1, "maximum": 1440},
                "reason": {**_TEXT, "description": "Shown to the person who decides."},
                "tools": {"type": "array", "items": {**_TEXT, "maxLength": 256}, "maxItems": 32},
                "uses": {"type": "integer", "minimum": 1, "maximum": 1000},
            },
            "required": ["entitlement", "reason"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": False, "destructiveHint": False, "openWorldHint": False},
    },
    {
        "name": "approval_status",
        "title": "How a question to a person stands",
        "description": "How a question to a person, or an elevation that was asked for, stands: pending, approved, denied, "
        "expired, cancelled or revoked.",
        "inputSchema": {
            "type": "object",
            "properties": {"approval": _ID},
            "required": ["approval"],
            "additionalProperties": False,
        },
        "annotations": _HINTS,
    },
    {
        "name": "explain_decision",
        "title": "Why a call was decided as it was",
        "description": "Why one of your own calls was permitted or refused, and what can be done now. Takes the id that every "
        "answer carries (dev.whygate/decision).",
        "inputSchema": {
            "type": "object",
            "properties": {"decision": _ID},
            "required": ["decision"],
            "additionalProperties": False,
        },
        "annotations": _HINTS,
    },
)
_ACCEPTS: Final[Mapping[str, Validator]] = {each["name"]: of_tool(each["inputSchema"]) for each in DEFINITIONS}
_SERVER_INFO: Final = {"name": "whygate", "version": __version__}
_encode: Final = msgspec.json.Encoder().encode


class Desk(Protocol):
    """Who does what the tools say. ``flow.desk`` implements it. All return what the agent is told."""

    async def request_elevation(
        self, principal: Principal, args: Mapping[str, Any], traceparent: str
    ) -> Mapping[str, Any]: ...

    async def approval_status(self, principal: Principal, approval: str) -> Mapping[str, Any]: ...

    async def explain_decision(self, principal: Principal, decision: str) -> Mapping[str, Any]: ...


def tool(name: str) -> Tool | None:
    """One of them as it is decided about; ``None`` where there is none of this name."""
    accepts = _ACCEPTS.get(name)
    if accepts is None:
        return None
    asks = name == "request_elevation"
    return Tool(
        server=OWN,
        name=name,
        type="mcp",
        tool_class=ToolClass.WRITE if asks else ToolClass.READ,
        tier=Tier.LOW,
        labels=(),
        standing=Standing.ACCEPTED,
        accepts=accepts,
    )


class _Whole:
    """An answer that is there already."""

    media_type = "application/json"

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self._body = status, body
        self.headers: list[tuple[str, str]] = [("content-type", "application/json")]

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self, cap_bytes: int) -> bytes:  # noqa: ARG002  the port's
        return self._body


class OwnTools:
    """Implements ``backend.Backend``: nothing is sent anywhere."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def send(self, out: Outgoing) -> AbstractAsyncContextManager[_Whole]:
        return self._send(out)

    @asynccontextmanager
    async def _send(self, out: Outgoing) -> AsyncIterator[_Whole]:
        yield await self._answered(out)

    async def dismiss(self, principal: Principal) -> None:
        """Nothing was started."""

    async def close(self) -> None:
        """Nothing is open."""

    async def _answered(self, out: Outgoing) -> _Whole:
        if out.http_method != "POST":
            return _Whole(405, b"")
        message = msgspec.json.decode(out.body)
        identity = message.get("id")
        if identity is None:
            return _Whole(202, b"")
        params = message.get("params") or {}
        modern = out.envelope.modern or "io.modelcontextprotocol/protocolVersion" in (params.get("_meta") or {})
        made = await self._of(message.get("method"), params, out.principal, modern=modern)
        answer = {"jsonrpc": "2.0", "id": identity, **made}
        return _Whole(400 if modern and "error" in made else 200, _encode(answer))

    async def _of(
        self, method: Any, params: Mapping[str, Any], principal: Principal, *, modern: bool
    ) -> dict[str, Any]:
        complete = {"resultType": "complete"} if modern else {}
        kept = {"ttlMs": 60_000, "cacheScope": "private"} if modern else {}
        match method:
            case "server/discover":
                known = {"supportedVersions": [*MODERN], "capabilities": {"tools": {}}, "serverInfo": _SERVER_INFO}
                return {"result": {**known, **complete, **kept}}
            case "initialize":
                asked = params.get("protocolVersion")
                version = asked if isinstance(asked, str) else "2025-11-25"
                return {
                    "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": _SERVER_INFO}
                }
            case "ping":
                return {"result": {}}
            case "tools/list":
                return {"result": {"tools": list(DEFINITIONS), **complete, **kept}}
            case "tools/call":
                return await self._call(params, principal, complete)
        return {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}

    async def _call(
        self, params: Mapping[str, Any], principal: Principal, complete: Mapping[str, Any]
    ) -> dict[str, Any]:
        name, args = params.get("name"), params.get("arguments") or {}
        accepts = _ACCEPTS.get(str(name))
        if accepts is None:
            return {"error": {"code": INVALID_PARAMS, "message": "Unknown tool"}}
        if accepts.wrong(args) is not None:
            return {"error": {"code": INVALID_PARAMS, "message": "The arguments are not what this tool takes"}}
        traceparent = (params.get("_meta") or {}).get("traceparent")
        match name:
            case "request_elevation":
                told = await self._desk.request_elevation(principal, args, str(traceparent or ""))
            case "approval_status":
                told = await self._desk.approval_status(principal, args["approval"])
            case _:
                told = await self._desk.explain_decision(principal, args["decision"])
        said = {"content": [{"type": "text", "text": _in_words(told)}], "structuredContent": told}
        return {"result": {**said, "isError": bool(told.get("refused")), **complete}}


def _in_words(told: Mapping[str, Any]) -> str:
    """The same for a model: our own words first, the rest as lines."""
    rest = (
        f"{key}: {value}" for key, value in told.items() if key not in {"note", "refused"} and value not in ("", None)
    )
    return "\n".join((str(told.get("note", "")), *rest)).strip()
