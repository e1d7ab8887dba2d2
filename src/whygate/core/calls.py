"""What is asked: one call of one tool, as the edge read it from the bytes that it will forward."""

from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from whygate.core.identity import ANONYMOUS, Principal
from whygate.core.reasons import Code


class ToolClass(StrEnum):
    """What a tool does to the world, in the coarsest useful words."""

    READ = "read"
    WRITE = "write"
    SEND = "send"
    EXEC = "exec"
    DELETE = "delete"
    SPEND = "spend"


class Tier(StrEnum):
    """How much harm a wrong call can do."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Standing(StrEnum):
    """What an operator has said to a tool's definition."""

    ACCEPTED = "accepted"
    """It is pinned and as pinned, or (plain HTTP) the operator's own words."""
    UNPINNED = "unpinned"
    """Nobody has accepted it, or there is no such tool."""
    CHANGED = "changed"
    """The server says something else by now."""


class Judge(Protocol):
    """What arguments a tool takes."""

    def wrong(self, value: Any) -> tuple[str, str] | None:
        """Place and keyword of one thing that is wrong, without any value; ``None`` where nothing is."""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool of one server, as the operator classified it. Unclassified means: high tier, untrusted results."""

    server: str
    name: str
    type: str
    """The protocol it is reached by: ``mcp`` or ``http``. ``resource``, ``prompt`` and ``question`` stand for what is no
    tool, but is decided like one (``core.things``)."""
    tool_class: ToolClass | None = None
    tier: Tier = Tier.HIGH
    labels: tuple[str, ...] = ("untrusted",)
    definition: str = ""
    """Digest of the pinned definition; empty while nothing is pinned."""
    standing: Standing = Standing.ACCEPTED
    """The catalogue sets it for every tool that it gives."""
    accepts: Judge | None = None
    """From the pinned definition; ``None`` where nothing is pinned, or where the edge has judged already."""
    known: bool = True
    """Whether the operator or the upstream ever mentioned it; a name that only a caller used stays out of span names."""

    @property
    def id(self) -> str:
        """``server/name``: the word for a tool in policies, records, spans and pages."""
        return f"{self.server}/{self.name}"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an edge or ``authn`` found wrong. A fact for ``decide``, which alone refuses."""

    code: Code
    note: str = ""
    """For operators: which header, which key. Never text from the call itself."""


class TraceParent(msgspec.Struct, frozen=True, kw_only=True):
    """W3C trace context, version 00 (https://www.w3.org/TR/trace-context/#traceparent-header)."""

    trace_id: str
    """32 lower-case hex digits, not all zero."""
    span_id: str
    """16 lower-case hex digits, not all zero."""
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


class Hints(msgspec.Struct, frozen=True, kw_only=True):
    """Correlation as the client sent it. Helps to join a task; is never a fact that a rule may read."""

    task: str = ""
    workflow: str = ""
    incident: str = ""
    session: str = ""
    """The transport's session (``Mcp-Session-Id``); empty where there is none."""
    parent: TraceParent | None = None


NO_HINTS: Final = Hints()


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, as evaluated. ``args`` are exactly what is forwarded: the body decides, headers are only checked."""

    protocol: str
    """``mcp`` or ``http``."""
    method: str
    """``tools/call``, ``tools/list``, or the HTTP method."""
    server: str = ""
    """The server or HTTP tool that was addressed, where it exists."""
    tool: Tool | None = None
    """``None`` where the method names no tool, or the tool could not be found out."""
    asked: str = ""
    """The name that was asked for, where it is not in the catalogue. Untrusted text of at most 128 characters: for the
    record only, never in a span's name."""
    args: dict[str, Any] = {}
    """JSON values; empty where there are none."""
    answers: dict[str, Any] = {}
    """What the caller answers to an earlier ``input_required`` (MCP 2026-07-28): as much a part of the call as ``args``."""
    principal: Principal = ANONYMOUS
    client: str = ""
    """Address of the peer, without port."""
    public: bool = False
    """The method is open to every authenticated caller (lists); only the gates apply."""
    faults: tuple[Fault, ...] = ()
    hints: Hints = NO_HINTS
    version: str = ""
    """Protocol revision, e.g. ``2026-07-28``; empty for plain HTTP."""
    presented: str = ""
    """The approval that the caller says it has for this call, by its id: looked up, never believed."""
    request_id: str = ""
    """The JSON-RPC id as text; empty for plain HTTP."""
