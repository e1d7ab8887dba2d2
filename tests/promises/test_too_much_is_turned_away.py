"""Above its bounds the gateway turns requests away early and says so; what only waits takes no room from anybody."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.servers.gateway import Running, billing_tool, running

from whygate.core.reasons import Code
from whygate.testing.billing import BillingServer
from whygate.transport import agents, asgi
from whygate.transport.agents import AgentsApp
from whygate.transport.asgi import Exchange


class Client:
    """One request to an ASGI application, without a network."""

    def __init__(self, method: str = "POST", path: str = "/mcp/up") -> None:
        self.scope = {"type": "http", "method": method, "path": path, "headers": []}
        self.sent: list[dict[str, Any]] = []
        self.body: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked = 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        return await self.body.get()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def piece(self, data: bytes, *, more: bool) -> None:
        self.body.put_nowait({"type": "http.request", "body": data, "more_body": more})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


class Edge:
    """Answers when it is let, after reading the body if it is told to."""

    def __init__(self, *, reads: bool = False) -> None:
        self.let = asyncio.Event()
        self.reads = reads

    async def __call__(self, name: str, exchange: Exchange) -> None:
        if self.reads:
            try:
                await exchange.body(1000)
            except asgi.ClientGone:
                return
        await self.let.wait()
        await exchange.respond(200, [], b"")


async def _no_http(name: str, rest: bytes, exchange: Exchange) -> None:
    await exchange.respond(200, [], b"")


def _app(edge: Edge, shed: list[int]) -> AgentsApp:
    return AgentsApp(edge, _no_http, "https://gw.example", [], shed=lambda: shed.append(1))


def _begin(app: AgentsApp, client: Client) -> "asyncio.Task[None]":
    return asyncio.ensure_future(app(client.scope, client.receive, client.send))


async def _rest() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_too_many_is_told_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After and the reason, before a byte of the body is asked for; when there is room, it goes on."""
    monkeypatch.setattr(agents, "MAX_BUSY", 2)
    edge, shed = Edge(), list[int]()
    app = _app(edge, shed)
    waiting = [_begin(app, Client()) for _ in range(2)]
    await _rest()
    late = Client()
    await app(late.scope, late.receive, late.send)
    assert (late.status, late.asked, shed) == (503, 0, [1])
    assert late.headers[b"whygate-reason"] == Code.OVERLOAD_SHED.value.encode()
    assert late.headers[b"whygate-outcome"] == b"error"
    assert late.headers[b"retry-after"]
    assert late.headers[b"connection"] == b"close"
    told = msgspec.json.decode(late.sent[1]["body"])
    assert (told["code"], told["next"], told["id"]) == ("overload.shed", "retry", "")
    edge.let.set()
    await asyncio.gather(*waiting)
    again = Client(path="/http/billing/x")
    await app(again.scope, again.receive, again.send)
    assert (again.status, app.load.busy) == (200, 0)


async def test_an_exchange_that_breaks_leaves_its_place() -> None:
    """Whatever an edge does, what was counted is given back."""
    app = AgentsApp(Edge(), lambda *_: 1 / 0, "https://gw.example", [])  # type: ignore[arg-type, return-value]  it fails
    client = Client(path="/x")
    with pytest.raises(ZeroDivisionError):
        await app(client.scope, client.receive, client.send)
    cancelled = _begin(app, Client())
    await _rest()
    assert app.load.busy == 1
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert app.load.busy == 0


async def test_streams_have_their_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that clients hold open keep no call out, and are bounded themselves."""
    monkeypatch.setattr(agents, "MAX_BUSY", 1)
    monkeypatch.setattr(agents, "MAX_STREAMS", 3)
    edge, shed = Edge(), list[int]()
    app = _app(edge, shed)
    streams = [_begin(app, Client("GET")) for _ in range(3)]
    await _rest()
    fourth = Client("GET")
    await app(fourth.scope, fourth.receive, fourth.send)
    assert (fourth.status, app.load.busy, app.load.streams) == (503, 0, 3)
    call = Client(path="/http/billing/x")
    await app(call.scope, call.receive, call.send)
    assert call.status == 200
    edge.let.set()
    await asyncio.gather(*streams)
    assert app.load.streams == 0


async def test_bodies_that_are_held_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients send large bodies slowly, memory has an end: the one too many is turned away."""
    monkeypatch.setattr(asgi, "MAX_HELD_BYTES", 250)
    edge, shed = Edge(reads=True), list[int]()
    app = _app(edge, shed)
    clients = [Client() for _ in range(3)]
    tasks = [_begin(app, client) for client in clients]
    for client in clients:
        client.piece(b"x" * 100, more=True)
    await _rest()
    assert (clients[2].status, shed) == (503, [1])
    for client in clients[:2]:
        client.piece(b"", more=False)
    await _rest()
    assert app.load.held_bytes == 200  # until the exchange is over
    edge.let.set()
    await asyncio.gather(*tasks)
    assert (app.load.held_bytes, app.load.busy) == (0, 0)


# --- a running gateway ---


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    unreachable = {"mcp": {"url": "http://127.0.0.1:9/mcp"}}
    async with running(tmp_path, {"billing": billing_tool(billing, tmp_path), "up": unreachable}) as made:
        yield made


@pytest.mark.parametrize("known", [True, False], ids=["agents", "strangers"])
@pytest.mark.parametrize("path", ["/mcp/up", "/http/billing/refunds"])
async def test_slow_bodies_keep_nobody_out(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, path: str, known: bool
) -> None:
    """Hundreds of clients that never finish their bodies take none of the places of those who do."""
    monkeypatch.setattr(agents, "MAX_BUSY", 2)
    host, _, port = gateway.gateway.config.listen.rpartition(":")
    head = [f"POST {path} HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/json", "Content-Length: 1000"]
    head += [f"Authorization: {gateway.headers()['authorization']}"] if known else []
    slow = []
    for _ in range(200):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write("\r\n".join([*head, "", ""]).encode() + b"{")
        slow.append(writer)
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.get(f"{gateway.url}/http/billing/invoices/1042")
    for writer in slow:
        writer.close()
    assert answer.status_code == 200


async def test_what_was_turned_away_is_told_afterwards(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record each, and none of their bodies read: one `gap` record says how many there were, and metrics count them."""
    monkeypatch.setattr(agents, "MAX_BUSY", 0)
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answers = [await client.get(f"{gateway.url}/http/billing/invoices/1042") for _ in range(20)]
        metrics = await client.get(f"{gateway.operators_url}/metrics")
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "overload.shed")}
    assert "whygate_requests_shed_total 20.0" in metrics.text
    await gateway.gateway.stop()
    (gap,) = [record for record in gateway.records() if record["kind"] == "gap"]
    assert (gap["data"]["code"], gap["data"]["count"]) == ("overload.shed", 20)
    assert gap["data"]["since"] <= gap["data"]["until"]
    assert gateway.decisions() == []
