"""The gateway as a client: it finds out a server's era and speaks it, over HTTP and stdio."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.servers.mcp_edge import Canned, Seen, fixture_upstream

from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.reasons import Code
from whygate.mcp.backend import Backend, HttpBackend, Server
from whygate.mcp.conversation import Conversation
from whygate.mcp.stdio import StdioBackend
from whygate.testing.serve import served
from whygate.transport.upstream import UpstreamError, Upstreams

WHO = Principal(id="agent:a", type=IdentityType.AI_AGENT, proof=Proof.API_KEY)
SCRIPT = Path(__file__).parents[1] / "servers" / "stdio_server.py"
Answers = Callable[[dict[str, Any]], dict[str, Any] | None]


@asynccontextmanager
async def _backend(server: Server) -> AsyncIterator[Backend]:
    pool = Upstreams(read_timeout_s=20)
    backend: Backend = HttpBackend(server, pool) if server.url else StdioBackend(server)
    try:
        yield backend
    finally:
        await backend.close()
        await pool.close()


@asynccontextmanager
async def _canned(answers: Answers, upstream: Canned) -> AsyncIterator[Conversation]:
    """A conversation with a server that answers by ``answers``: a result, an error, or nothing (400)."""

    def answer(seen: Seen) -> bytes:
        upstream.status = 200
        if not seen.body or "id" not in (message := json.loads(seen.body)):
            upstream.status = 202
            return b""
        made = answers(message)
        if made is None:
            upstream.status = 400
            return b"Bad Request"
        upstream.status = made.pop("_status", 200)
        return json.dumps({"jsonrpc": "2.0", "id": message["id"]} | made).encode()

    upstream.answer = answer
    async with served(upstream) as url:
        server = Server(name="up", url=url, headers=(("authorization", "Bearer ours"),))
        async with _backend(server) as backend:
            conversation = Conversation(server, backend, WHO)
            try:
                yield conversation
            finally:
                await conversation.close()


def _legacy(message: dict[str, Any]) -> dict[str, Any] | None:
    if message["method"] == "initialize":
        return {"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {}}}
    return {"result": {"tools": [{"name": "one"}]}} if message["method"] == "tools/list" else None


@pytest.mark.parametrize("kind", ["json", "events", "stdio"])
async def test_a_modern_server_is_spoken_to_as_one(kind: str) -> None:
    """Discovered, listed and called, without a session."""
    async with fixture_upstream(kind) as server, _backend(server) as backend:
        conversation = Conversation(server, backend, WHO)
        names = [json.loads(one)["name"] for one in (await conversation.list_tools()).tools]
        assert "echo" in names
        assert conversation.modern
        params = {"name": "echo", "arguments": {"text": "hi"}}
        async with conversation.ask("tools/call", params, args=params["arguments"]) as asked:
            found = [data async for _, data in asked.messages()]
        assert "hi" in found[-1].decode()
        await conversation.close()


async def test_a_legacy_server_is_spoken_to_as_one() -> None:
    """Whoever does not know discovery gets the handshake, and the session and version that it gave from then on."""
    upstream = Canned()
    upstream.headers.append((b"mcp-session-id", b"s-1"))
    async with _canned(_legacy, upstream) as conversation:
        listing = await conversation.list_tools()
        assert listing.tools == [b'{"name": "one"}']
        assert not conversation.modern
    told = [(seen.method, json.loads(seen.body)["method"] if seen.body else "") for seen in upstream.seen]
    assert told == [
        ("POST", "server/discover"),
        ("POST", "initialize"),
        ("POST", "notifications/initialized"),
        ("POST", "tools/list"),
        ("DELETE", ""),
    ]
    for seen in upstream.seen[2:]:
        assert (seen.headers["mcp-session-id"], seen.headers["mcp-protocol-version"]) == ("s-1", "2025-06-18")
        assert seen.headers["authorization"] == "Bearer ours"


async def test_a_legacy_server_over_stdio() -> None:
    """The process that was asked for its era takes no other: it is let go, and the handshake has one of its own."""
    server = Server(name="up", command=(sys.executable, str(SCRIPT)))
    async with _backend(server) as backend:
        conversation = Conversation(server, backend, WHO)
        async with conversation.ask("tools/call", {"name": "t", "arguments": {}}) as asked:
            found = [message async for message, _ in asked.messages()]
        assert found[-1].result
        assert not conversation.modern
        assert isinstance(backend, StdioBackend)
        assert len(backend._sessions) == 1
        assert not backend._shared
        await conversation.close()
        assert not backend._sessions


async def test_a_lost_session_is_opened_anew() -> None:
    """A server that has restarted answers 404, having done nothing: the request goes out again in a new session."""
    upstream, lost = Canned(), []

    def answers(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["method"] == "tools/list" and not lost:
            lost.append(True)
            return {"_status": 404, "error": {"code": -32600, "message": "Session not found"}}
        return _legacy(message)

    upstream.headers.append((b"mcp-session-id", b"s-1"))
    async with _canned(answers, upstream) as conversation:
        assert len((await conversation.list_tools()).tools) == 1
    methods = [json.loads(seen.body)["method"] for seen in upstream.seen if seen.body]
    assert methods.count("initialize") == 2
    assert methods.count("tools/list") == 2


async def test_all_pages_are_read_in_order() -> None:
    """No page is lost; the definitions keep their bytes."""
    pages = {"": (["a", "b"], "x"), "x": (["c"], "y"), "y": (["d"], None)}

    def answers(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["method"] != "tools/list":
            return _legacy(message)
        names, following = pages[message["params"].get("cursor", "")]
        return {"result": {"tools": [{"name": name} for name in names], "nextCursor": following}}

    async with _canned(answers, Canned()) as conversation:
        assert [json.loads(one)["name"] for one in (await conversation.list_tools()).tools] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ({"tools": [], "nextCursor": "same"}, Code.UPSTREAM_FAILED),
        ({"tools": [], "nextCursor": "other"}, Code.RESULT_TOO_LARGE),
        ({"tools": [{"name": "n"}] * 2001}, Code.RESULT_TOO_LARGE),
        ({"tools": [{"name": "n" * 20_000_000}]}, Code.RESULT_TOO_LARGE),
        ({"tools": 7}, Code.UPSTREAM_FAILED),
        ({"resultType": "input_required", "tools": []}, Code.UPSTREAM_FAILED),
    ],
)
async def test_a_list_that_can_not_be_had_whole_is_none(page: dict[str, Any], code: Code) -> None:
    """Endless, circular, too long, too large or unreadable: never a part of it passed off as the list."""

    def answers(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["method"] != "tools/list":
            return _legacy(message)
        following = (
            {"nextCursor": f"{message['params'].get('cursor', '')}x"} if page.get("nextCursor") == "other" else {}
        )
        return {"result": page | following}

    async with _canned(answers, Canned()) as conversation:
        with pytest.raises(UpstreamError) as caught:
            await conversation.list_tools()
    assert caught.value.code is code


async def test_a_stream_that_was_closed_is_taken_up_again() -> None:
    """A legacy server that closes its stream and answers later: the rest is fetched after the last event."""
    upstream = Canned()
    events = (b"content-type", b"text/event-stream")

    def answer(seen: Seen) -> bytes:
        upstream.headers, upstream.status = [(b"content-type", b"application/json")], 200
        if seen.method == "GET":
            upstream.headers = [events]
            return b'id: 8\ndata: {"jsonrpc":"2.0","id":3,"result":{"tools":[]}}\n\n'
        if seen.method == "DELETE" or "id" not in (message := json.loads(seen.body)):
            upstream.status = 202
            return b""
        if message["method"] == "tools/list":
            upstream.headers = [events]
            return b"id: 7\nretry: 10\ndata: \n\n"
        made = _legacy(message)
        upstream.status = 200 if made else 400
        return json.dumps({"jsonrpc": "2.0", "id": message["id"]} | (made or {})).encode()

    upstream.answer = answer
    async with served(upstream) as url:
        server = Server(name="up", url=url)
        async with _backend(server) as backend:
            assert (await Conversation(server, backend, WHO).list_tools()).tools == []
    assert [seen.headers["last-event-id"] for seen in upstream.seen if seen.method == "GET"] == ["7"]
