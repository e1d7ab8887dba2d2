"""What the fuzzer throws at both edges: valid requests of every kind, then bent.

Rules of this file:

1. A new MCP method is a line in ``METHODS``, a new address one in ``ADDRESSES``, a new plain HTTP operation one in ``CALLS``.
2. Everything comes from the ``Random`` that is given: the same one gives the same input. Hypothesis can stand behind it,
   and then shrinks what it finds.
"""

from random import Random
from typing import Any, Final, NamedTuple

from tests.fuzz import bending
from tests.fuzz.bending import Obj, obj

META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
METHODS: Final[dict[str, dict[str, Any] | None]] = {
    "tools/call": {"name": "echo", "arguments": {"text": "hello", "count": 3, "deep": {"list": [1, 2.5, None, True]}}},
    "tools/list": {},
    "initialize": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "f", "version": "1"}},
    "ping": None,
    "resources/list": {},
    "resources/templates/list": {},
    "resources/read": {"uri": "file:///notes/today"},
    "resources/subscribe": {"uri": "file:///notes/today"},
    "resources/unsubscribe": {"uri": "file:///notes/today"},
    "prompts/list": {"cursor": "abc"},
    "prompts/get": {"name": "greet", "arguments": {"who": "world"}},
    "completion/complete": {
        "ref": {"type": "ref/prompt", "name": "greet"},
        "argument": {"name": "who", "value": "w"},
    },
    "logging/setLevel": {"level": "info"},
    "tasks/get": {"taskId": "t-1"},
    "tasks/list": {},
    "tasks/result": {"taskId": "t-1"},
    "tasks/cancel": {"taskId": "t-1"},
    "tasks/update": {"taskId": "t-1", "inputResponses": {}},
    "subscriptions/listen": {"notifications": {"toolsListChanged": True}},
    "server/discover": {},
    "elicitation/create": {"message": "who are you?", "requestedSchema": {"type": "object", "properties": {}}},
    "sampling/createMessage": {"messages": [], "maxTokens": 10},
    "roots/list": None,
    "notifications/initialized": None,
    "notifications/cancelled": {"requestId": 7, "reason": "enough"},
    "notifications/progress": {"progressToken": 7, "progress": 1},
    "notifications/roots/list_changed": None,
    "notifications/tasks/status": {"taskId": "t-1", "status": "working"},
    "notifications/nobody/knows": None,
    "nobody/knows": {"a": 1},
}
ADDRESSES: Final = (*("/mcp/up",) * 14, *("/mcp/piped",) * 6, *("/mcp",) * 5, "/mcp/nothing", "/mcp/", "/mcp/up/more")
NAMES: Final = ("echo", "echo", "add", "danger", "scoped", "odd", "nosuch", "up__echo", "no such\ntool", "e" * 200, "")
MERGED: Final = ("up__echo", "up__echo", "piped__echo", "up__danger", "up__nosuch", "ghost__echo", "billing__refund")
"""Names at the address of all servers."""
URIS: Final = (
    *("file:///notes/today", "file:///notes/a/b.md?token=x", "file:///etc/passwd", "file:///notes/../etc/passwd"),
    *(
        "file:///notes//etc",
        "FILE:///notes/today",
        "file:///notes/%2e%2e/etc",
        "file:///notes/a%2fb",
        "file://localhost/notes/x",
    ),
    *(
        "notes",
        "",
        "x:\u00a0y",
        "file:///notes/" + "x" * 3_000,
        "file:///notes/%zz",
        "file:///n\uff4ftes/x",
        "file:///notes/{n}",
    ),
)
REFS: Final = (
    *({"type": "ref/prompt", "name": name} for name in ("greet", "other", "a\nb")),
    *({"type": "ref/resource", "uri": uri} for uri in ("file:///notes/{n}", "file:///etc/{n}")),
    {"type": "ref/other", "name": "greet"},
)
WANTED: Final[tuple[dict[str, Any], ...]] = (
    {"resourceSubscriptions": ["file:///notes/today", "file:///notes/b"]},
    {"resourceSubscriptions": ["file:///notes/today", "file:///etc/passwd"], "promptsListChanged": True},
    {"resourceSubscriptions": ["file:///notes/today"] * 70},
    {"taskIds": ["t-1"]},
    {"taskIds": ["t-1", "t-2"], "resourceSubscriptions": "x"},
    {"anotherFilter": ["x"]},
)
STATES: Final = ("wg1.00112233445566778899aabbccddeeff.s", "s", "", "wg1.")
CALLS: Final = (
    ("GET", "/billing/invoices/1042", "", ""),
    ("GET", "/billing/invoices/1042", "verbose=yes&page=2", ""),
    ("GET", "/billing/customers/export", "", ""),
    ("POST", "/billing/refunds", "", '{"amount_cents": 4500, "invoice_id": "1042", "note": "late"}'),
    ("POST", "/billing/refunds", "dry=1", '{"amount_cents": 900000}'),
    ("POST", "/billing/refunds", "", "amount_cents=4500&note=late"),
    ("PUT", "/billing/notes/7/text", "", '["a", {"b": 1}]'),
    ("DELETE", "/billing/notes/7/text", "", ""),
    ("HEAD", "/billing/invoices/1042", "", ""),
    ("PATCH", "/billing/notes/7/text", "", '{"text": "new"}'),
    ("GET", "/typed/invoices", "limit=5&paid=true&tag=a&tag=b&ids=1,2,3", ""),
    ("GET", "/typed/invoices", "limit=5&tag=a%2Cb", ""),
    ("GET", "/typed/invoices", "tag=%ff", ""),
    ("GET", "/typed/invoices/1042", "", ""),
    ("POST", "/typed/invoices/1042/refund", "", '{"amount_cents": 4500, "note": "late"}'),
    ("POST", "/typed/invoices/1042/refund", "", '{"amount_cents": 4500, "lines": [{"sku": "a", "n": 1}]}'),
    ("GET", "/nothing/at/all", "", ""),
    ("OPTIONS", "/billing/invoices/1042", "", ""),
)
LIVE: Final = "live-session"
"""Stands for a session that a process has open at that moment."""
SESSIONS: Final = (LIVE, LIVE, "s-1", "s-2", "stolen-session")
FOREIGN_TRACE: Final = "ab" * 16
CLIENT_LABEL: Final = "label-of-the-client"


class Known(NamedTuple):
    """What a generator may name, in one running world."""

    credentials: tuple[tuple[str, str], ...]
    """Kind and value of ``Authorization``."""
    host: str
    own_task: str
    foreign_task: str
    foreign_task_trace: str


class Input(NamedTuple):
    """One request, and how it and its answer travel."""

    method: str
    target: bytes
    """Path as on the wire."""
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    pieces: int
    """In how many parts the body comes; 0: it breaks off."""
    leaves: bool
    """The client goes away before the answer."""
    upstream: int
    """Chooses what the upstream answers."""

    @property
    def edge(self) -> str:
        return "mcp" if self.target.startswith(b"/mcp") else "http"


def one(chance: Random, known: Known) -> Input:
    """An input."""
    return _mcp(chance, known) if chance.random() < 0.55 else _http(chance, known)


def _travel(chance: Random) -> tuple[int, bool, int]:
    how = chance.random()
    pieces = 1 if how < 0.85 else chance.choice((2, 3, 9)) if how < 0.97 else 0
    return pieces, chance.random() < 0.02, chance.randrange(1000)


def _who(chance: Random, known: Known) -> list[tuple[str, str]]:
    if chance.random() < 0.9:
        return [("authorization", known.credentials[0][1])]
    value = chance.choice(known.credentials)[1]
    return [("authorization", value)] if value else []


def _mcp(chance: Random, known: Known) -> Input:
    method = chance.choice(("tools/call",) * 40 + ("tools/list",) * 4 + tuple(METHODS))
    params = METHODS[method]
    message = obj({"jsonrpc": "2.0", "id": chance.choice((1, 7, "x", 2**53 - 1)), "method": method})
    if method.startswith("notifications/") and chance.random() < 0.9:
        message = Obj(pair for pair in message if pair[0] != "id")
    target = chance.choice(ADDRESSES)
    inner = obj(_varied(chance, method, params or {}, merged=target == "/mcp"))
    modern = chance.random() < 0.5
    meta = _meta(chance, known, modern=modern)
    if meta:
        inner.append(("_meta", meta))
    if params is not None or meta:
        message.append(("params", inner))
    if chance.random() < 0.04:
        message = obj({"jsonrpc": "2.0", "id": 1, "result": {"action": "accept"}})
    headers = [*_who(chance, known), ("host", known.host), ("content-type", "application/json")]
    headers.append(("accept", chance.choice(("application/json, text/event-stream", "application/json"))))
    headers += _routing(chance, method, inner, modern=modern)
    verb = "POST" if chance.random() < 0.94 else chance.choice(("GET", "DELETE", "PUT", "HEAD", "OPTIONS", "post"))
    body = bending.written(chance, bending.bent(chance, message)) if verb == "POST" or chance.random() < 0.2 else b""
    query = b"" if chance.random() < 0.97 else chance.choice((b"a=1", b"x", b"\xff", b"name=danger"))
    return Input(
        verb, target.encode(), query, bending.heads(chance, headers, known.credentials), body, *_travel(chance)
    )


def _varied(chance: Random, method: str, params: dict[str, Any], *, merged: bool) -> dict[str, Any]:
    """The parameters, about something else now and then."""
    made = dict(params)
    if method == "tools/call" and chance.random() < (0.9 if merged else 0.3):
        made["name"] = chance.choice(MERGED if merged else NAMES)
    if chance.random() < 0.6:
        for key, values in (("uri", URIS), ("ref", REFS), ("notifications", WANTED)):
            if key in made:
                made[key] = chance.choice(values)
    if method == "prompts/get" and chance.random() < 0.3:
        made["name"] = chance.choice(("other", "a\nb", "", "g" * 200))
    if "taskId" in made and chance.random() < 0.3:
        made["taskId"] = chance.choice(("t-2", "", "t" * 600))
    if method in ("tools/call", "prompts/get", "resources/read", "tasks/update") and chance.random() < 0.06:
        made["inputResponses"] = {"a": {"action": "accept", "content": {"amount_cents": 1}}}
    if method in ("tools/call", "prompts/get", "tasks/update") and chance.random() < 0.04:
        made["requestState"] = chance.choice(STATES)
    return made


def _meta(chance: Random, known: Known, *, modern: bool) -> Obj:
    meta = obj(META) if modern else Obj()
    if modern and chance.random() < 0.03:
        meta = obj({**META, "io.modelcontextprotocol/protocolVersion": "2027-01-01"})
    if chance.random() < 0.1:
        meta.append(("progressToken", chance.choice((7, "p"))))
    if chance.random() < 0.15:
        meta.append(
            chance.choice(
                (
                    ("dev.whygate/task", known.own_task),
                    ("dev.whygate/task", known.foreign_task),
                    ("dev.whygate/workflow", CLIENT_LABEL),
                    ("dev.whygate/incident", CLIENT_LABEL),
                    ("dev.whygate/decision", "forged"),
                    ("traceparent", f"00-{FOREIGN_TRACE}-{'cd' * 8}-01"),
                    ("traceparent", f"00-{known.foreign_task_trace}-{'cd' * 8}-01"),
                    ("tracestate", "client=1"),
                    ("baggage", f"task={CLIENT_LABEL}"),
                )
            )
        )
    return meta


def _routing(chance: Random, method: str, params: Obj, *, modern: bool) -> list[tuple[str, str]]:
    made = []
    if modern or chance.random() < 0.1:
        meta = dict(dict(params).get("_meta", ()))
        version = meta.get("io.modelcontextprotocol/protocolVersion", "2025-11-25")
        made = [("mcp-protocol-version", version), ("mcp-method", method)]
        values = dict(params)
        named = values.get("name", values.get("uri", values.get("taskId")))
        if (
            isinstance(named, str) and named.isprintable() and method in ("tools/call", "prompts/get", "resources/read")
        ) or (isinstance(named, str) and method.startswith("tasks/")):
            made.append(("mcp-name", named))
    if not modern and chance.random() < 0.5:
        made.append(("mcp-session-id", chance.choice(SESSIONS)))
    return made


def _http(chance: Random, known: Known) -> Input:
    method, path, query, body = chance.choice(CALLS)
    headers = [*_who(chance, known), ("host", known.host)]
    if body:
        is_json = body[0] in "{["
        headers.append(("content-type", "application/json" if is_json else "application/x-www-form-urlencoded"))
    raw = body.encode()
    if body and body[0] in "{[" and chance.random() < 0.6:
        raw = bending.written(chance, bending.bent(chance, bending.read(body)))
    elif body and chance.random() < 0.5:
        raw = bending.fields(chance, raw)
    elif chance.random() < 0.02:
        raw = b'{"amount_cents": 1}'
    target = b"/http" + (bending.path(chance, path.encode()) if chance.random() < 0.4 else path.encode())
    asked = bending.fields(chance, query.encode()) if chance.random() < 0.4 else query.encode()
    if chance.random() < 0.04:
        method = chance.choice(("GET", "POST", "PUT", "TRACE", "CONNECT", "PROPFIND", "get", "DELETE"))
    if chance.random() < 0.1:
        headers.append(
            chance.choice(
                (
                    ("whygate-task", known.own_task),
                    ("whygate-task", known.foreign_task),
                    ("traceparent", f"00-{known.foreign_task_trace}-{'cd' * 8}-01"),
                )
            )
        )
    return Input(method, target, asked, bending.heads(chance, headers, known.credentials), raw, *_travel(chance))
