"""The MCP edge inside a test: really served, with a fake gate, before real or canned upstreams."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from whygate.mcp.backend import Server
from whygate.mcp.edge import McpEdge
from whygate.mcp.merged import MergedEdge
from whygate.testing.gate import FakeCatalogue, FakeGate, FakeIdentifier
from whygate.testing.mcp_server import make
from whygate.testing.serve import free_port, served
from whygate.transport.agents import AgentsApp
from whygate.transport.asgi import Exchange, Receive, Scope, Send
from whygate.transport.origin import Origins

METADATA = "https://gw.example/.well-known/oauth-protected-resource"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def _no_http(name: str, rest: bytes, exchange: Exchange) -> None:
    await exchange.respond(404, [], b"")


class Gateway:
    """An edge that is being served."""

    def __init__(self, url: str, gate: FakeGate, edge: McpEdge, catalogue: FakeCatalogue) -> None:
        self.url = url
        self.gate = gate
        self.edge = edge
        self.catalogue = catalogue

    @asynccontextmanager
    async def client(self, mode: str, *, agent: str = "a", server: str = "up", **more: Any) -> AsyncIterator[Client]:
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {agent}"}, timeout=20) as http:
            transport = streamable_http_client(
                f"{self.url}/mcp/{server}" if server else f"{self.url}/mcp", http_client=http
            )
            async with Client(transport, mode=mode, **more) as client:
                yield client

    @asynccontextmanager
    async def raw(self, *, agent: str = "a") -> AsyncIterator[httpx.AsyncClient]:
        headers = {
            "authorization": f"Bearer {agent}",
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
        }
        async with httpx.AsyncClient(base_url=f"{self.url}/mcp", headers=headers, timeout=20) as client:
            yield client


@asynccontextmanager
async def gateway(
    server: Server, gate: FakeGate, *others: Server, suspended: tuple[str, ...] = ()
) -> AsyncIterator[Gateway]:
    port = free_port()
    origins = Origins(f"http://127.0.0.1:{port}", f"127.0.0.1:{port}")
    catalogue = FakeCatalogue()
    edge = MergedEdge(
        {each.name: each for each in (server, *others)},
        FakeIdentifier(suspended),
        gate,
        catalogue,
        origins=origins,
        resource_metadata=METADATA + "/mcp/{server}",
    )
    await edge.start()
    try:
        async with served(AgentsApp(edge, _no_http, "https://gw.example", []), port=port) as url:
            yield Gateway(url, gate, edge, catalogue)
    finally:
        await edge.close()


@asynccontextmanager
async def fixture_upstream(kind: str) -> AsyncIterator[Server]:
    """The SDK's server: answering ``json``, ``events``, or over ``stdio``."""
    if kind == "stdio":
        yield Server(name="up", command=(sys.executable, "-m", "whygate.testing.mcp_server"))
        return
    app = make().streamable_http_app(json_response=kind == "json")
    async with served(app, lifespan=True) as url:
        yield Server(name="up", url=f"{url}/mcp", headers=(("authorization", "Bearer ours"),))


class Seen:
    """A request as the upstream got it."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.method: str = scope["method"]
        self.target: bytes = (scope.get("raw_path") or scope["path"].encode()) + (
            b"?" + scope["query_string"] if scope.get("query_string") else b""
        )
        self.raw_headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.body = body


class Canned:
    """An upstream that notes what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
        self.answer: Callable[[Seen], bytes | list[bytes]] = lambda seen: result(json.loads(seen.body)["id"])
        self.hold: asyncio.Event | None = None
        """Wait for this before the last chunk."""
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()
        """Whoever asked has closed the connection before it had the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen = Seen(scope, body)
        self.seen.append(seen)
        self.arrived.set()
        found = self.answer(seen)
        chunks = found if isinstance(found, list) else [found]
        if len(chunks) > 1 or self.hold is None:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
            for chunk in chunks[:-1]:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if self.hold is not None:
            gone = asyncio.ensure_future(receive())
            held = asyncio.ensure_future(self.hold.wait())
            await asyncio.wait((gone, held), return_when=asyncio.FIRST_COMPLETED)
            held.cancel()
            if gone.done():
                self.left.set()
                return
            gone.cancel()
            if len(chunks) == 1:
                await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": chunks[-1]})


def result(identity: Any, text: str = "ok") -> bytes:
    body = {"content": [{"type": "text", "text": text}], "isError": False}
    return json.dumps({"jsonrpc": "2.0", "id": identity, "result": body}).encode()


def call(
    name: str = "echo", args: Any = None, *, identity: Any = 1, modern: bool = True, **meta: Any
) -> dict[str, Any]:
    """A ``tools/call`` as an object."""
    params: dict[str, Any] = {"name": name, "arguments": {} if args is None else args}
    if modern or meta:
        params["_meta"] = (META if modern else {}) | meta
    return {"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": params}


def routing(method: str = "tools/call", name: str | None = "echo") -> dict[str, str]:
    """The headers that the modern era demands."""
    made = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    return made if name is None else made | {"mcp-name": name}
