"""``/mcp``: whatever agents send and servers answer, every answer is explained and every admitted call is completed once."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.servers.mcp_edge import META, call, routing

from whygate.core.identity import Principal
from whygate.mcp.backend import Outgoing, Server
from whygate.mcp.merged import MergedEdge
from whygate.mcp.stdio import Whole
from whygate.testing.gate import FakeCatalogue, FakeGate, FakeIdentifier
from whygate.transport.asgi import Exchange
from whygate.transport.origin import Origins

KEYS = st.sampled_from(
    ["id", "method", "params", "name", "arguments", "_meta", "cursor", "requestId", "capabilities", "result", "error",
     "progressToken", "protocolVersion", "inputRequests", "requestState", "resultType", "tools", "content", "code"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["", "x", "up__echo", "up__", "__", "ghost__x", "tools/call", "tools/list", "initialize", "ping", "server/discover",
     "notifications/cancelled", "notifications/progress", "elicitation/create", "2025-06-18", "2026-07-28", "complete",
     "input_required", "task", "\u202e"]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**60) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
ASKED: list[Any] = [
    call("up__echo"),
    call("up__echo", modern=False, progressToken=1),
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {"elicitation": {}}}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}},
    {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}},
    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
    {"jsonrpc": "2.0", "id": "whygate-x", "result": {}},
]
GOOD: dict[str, Any] = {
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
    "initialize": {"protocolVersion": "2025-11-25", "capabilities": {}},
    "tools/list": {"tools": [{"name": "echo"}]},
    "tools/call": {"content": []},
}
CHANGES = st.lists(st.tuples(st.lists(KEYS, max_size=3), KEYS, ANYTHING), max_size=2)


def changed(message: Any, changes: list[tuple[list[str], str, Any]]) -> Any:
    """The message with some members put in or replaced, somewhere on the way inwards."""
    made = json.loads(json.dumps(message))
    for way, key, value in changes:
        node = made
        for step in way:
            node = node[step] if isinstance(node.get(step), dict) else node
        node[key] = value
    return made


class AnyServer:
    """Answers each request with what comes next: as it should, or otherwise."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers

    @asynccontextmanager
    async def send(self, out: Outgoing) -> AsyncIterator[Whole]:
        changes, status, before = self._answers.pop() if self._answers else ([], 200, None)
        message = {"jsonrpc": "2.0", "id": out.envelope.id, "result": GOOD.get(out.envelope.method, {})}
        body = json.dumps(changed(message, changes)).encode()
        if before is None:
            yield Whole(status, body)
        else:
            events = b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in (before, json.loads(body)))
            made = Whole(status, events)
            made.media_type = "text/event-stream"
            yield made

    async def dismiss(self, principal: Principal) -> None: ...

    async def close(self) -> None: ...


async def _exchanged(edge: MergedEdge, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Status, session and body of the answer."""
    sent: list[Any] = []
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()
        return left.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    base = {"host": "h", "accept": "application/json, text/event-stream", "content-type": "application/json"}
    raw = [(name.encode(), value.encode()) for name, value in (base | headers).items()]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": raw, "query_string": b"", "client": None}
    async with asyncio.timeout(20):
        await edge("", Exchange(scope, receive, send))
    session = dict(sent[0]["headers"]).get(b"mcp-session-id", b"")
    return sent[0]["status"], session, b"".join(message.get("body", b"") for message in sent[1:])


ANSWERS = st.lists(
    st.tuples(CHANGES, st.sampled_from([200, 200, 200, 202, 400, 401, 404, 500]), st.none() | ANYTHING), max_size=6
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(st.tuples(st.sampled_from(ASKED), CHANGES, st.booleans()), min_size=1, max_size=4),
    answers=ANSWERS,
)
async def test_anything(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, messages: Any, answers: list[Any]
) -> None:
    """No exchange fails in an unforeseen way, no refusal is without a record, no admitted call without its one completion."""
    monkeypatch.setattr("whygate.mcp.asked._RETRY_S", 0.0)
    monkeypatch.setattr("whygate.mcp.crossing.ANSWER_S", 0.0)
    gate = FakeGate()
    edge = MergedEdge(
        {"up": Server(name="up", url="http://up.example/mcp")},
        FakeIdentifier(()),
        gate,
        FakeCatalogue(),
        origins=Origins("http://h", "h:80", ["h"]),
        resource_metadata="/mcp/{server}",
    )
    await edge.start()
    edge._backends["up"] = AnyServer(answers)  # type: ignore[assignment]  # a backend that answers by heart
    session = b""
    try:
        for message, changes, modern in messages:
            body = json.dumps(changed(message, changes)).encode()
            headers = {"authorization": "Bearer a"} | ({"mcp-session-id": session.decode()} if session else {})
            if modern:
                params = json.loads(body).get("params")
                named = params.get("name") if isinstance(params, dict) else None
                headers |= routing(str(json.loads(body).get("method")).encode("ascii", "ignore").decode(), None)
                headers |= {"mcp-name": named.encode("ascii", "ignore").decode()} if isinstance(named, str) else {}
            before = len(gate.admitted)
            status, opened, answer = await _exchanged(edge, body, headers)
            session = opened or session
            assert status in {200, 202, 400, 404, 429}, (status, body, answer)
            if status not in {200, 202} and b"Session not found" not in answer:
                assert len(gate.admitted) > before, (body, answer)
            admitted = [id(one) for one in gate.admitted if one.allowed]
            assert sorted(admitted) == sorted(id(one) for one, _ in gate.completed), (body, answer)
    finally:
        await edge.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
