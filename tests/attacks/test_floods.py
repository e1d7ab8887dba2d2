"""What one client can make the gateway hold, read, start or remember: each of it is bounded in size and in time."""

import asyncio
import contextlib
import resource
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.attacks.test_upstreams import POLICY
from tests.servers.gateway import Running, billing_tool, running
from tests.servers.mcp_edge import call
from tests.servers.served import Served

from whygate.http import edge as http_edge
from whygate.mcp import edge as mcp_edge
from whygate.mcp import watch
from whygate.testing.billing import BillingServer
from whygate.transport import asgi


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    unreachable = {"mcp": {"url": "http://127.0.0.1:9/mcp"}}
    async with running(tmp_path, {"billing": billing_tool(billing, tmp_path), "up": unreachable}) as made:
        yield made


async def _begin(gateway: Running, path: str, authorization: str, sent: bytes) -> bytes:
    """Send the head of a request and a part of its body; what comes back before the connection ends or 5 seconds do."""
    host, _, port = gateway.gateway.config.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = [f"POST {path} HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/json", "Content-Length: 1000"]
    head += [f"Authorization: {authorization}"] if authorization else []
    writer.write("\r\n".join([*head, "", ""]).encode() + sent)
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    finally:
        await _end(writer)


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("path", ["/mcp/up", "/http/billing/refunds"])
async def test_a_body_that_trickles_is_not_waited_for_for_ever(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A body has a minute; a caller whom nobody knows has five seconds, and only to see why it was refused."""
    assert (asgi.BODY_S, asgi.DISCARD_S) == (60, 5)
    monkeypatch.setattr(asgi, "BODY_S", 0.2)
    monkeypatch.setattr(asgi, "DISCARD_S", 0.1)
    known = await _begin(gateway, path, gateway.headers()["authorization"], b"{")
    assert b"whygate-reason: request.malformed" in known
    stranger = await _begin(gateway, path, "", b"{")
    assert b"whygate-reason: agent.unauthenticated" in stranger
    assert [record["reason"]["code"] for record in gateway.decisions()] == [
        "request.malformed",
        "agent.unauthenticated",
    ]


@pytest.mark.parametrize("path", ["/mcp/up", "/http/billing/refunds"])
async def test_nothing_of_a_strangers_body_is_read(gateway: Running, path: str) -> None:
    """Who has no credential costs us no parsing, and leaves no trace of what was in the body."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{gateway.url}{path}", content=b"{" * 1_000_000, headers={"content-type": "application/json"}
        )
    record = gateway.decision(answer)
    assert (answer.status_code, record["reason"]["code"]) == (401, "agent.unauthenticated")
    assert "request." not in record["reason"]["admin"]
    assert not record.get("arguments")


async def test_a_large_body_is_read_aside(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four megabytes of small objects take more than half a second to read; other calls do not wait for that."""
    threads = []

    def noted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def read(*args: Any) -> Any:
            threads.append(threading.current_thread() is threading.main_thread())
            return real(*args)

        monkeypatch.setattr(module, name, read)

    noted(mcp_edge, "read")
    noted(http_edge, "_call")
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        for content in (b"[{}]", b"[" + b"{}," * 50_000 + b"{}]"):
            for path in ("/mcp/up", "/http/billing/refunds"):
                await client.post(gateway.url + path, content=content, headers={"content-type": "application/json"})
    assert threads == [True, True, False, False]


async def test_only_http_1_is_spoken(gateway: Running) -> None:
    """The limits on headers and connections are HTTP/1's; HTTP/2 without them would be a way around."""
    host, _, port = gateway.gateway.config.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    answer = await asyncio.wait_for(reader.read(1000), 5)
    await _end(writer)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


MEGABYTES_200 = 200 * 1024 * 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_memory_is_given_back_after_a_flood(tmp_path: Path, billing: BillingServer) -> None:
    """Hundreds of clients that send slowly cost little, large bodies no more than their bytes; when they go, so does it all."""
    served = Served(tmp_path, billing)
    host, _, port = served.config["listen"].rpartition(":")
    head = f"POST /http/billing/refunds HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: 4194304\r\nAuthorization: {served.headers()['authorization']}\r\n\r\n"

    def resident(pid: int) -> int:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()

    async def send(size: int) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode() + b" " * size)
        await writer.drain()
        return writer

    async with served.process() as process, httpx.AsyncClient(headers=served.headers()) as client:
        idle = resident(process.pid)
        for count, size, most in ((400, 1000, 40), (60, 4_000_000, 400)):
            writers = await asyncio.gather(*(send(size) for _ in range(count)))
            assert (await client.get(f"{served.url}/http/billing/invoices/1042")).status_code == 200
            assert resident(process.pid) - idle < most * 1024 * 1024
            for writer in writers:
                writer.transport.abort()
        async with asyncio.timeout(20):
            while resident(process.pid) > min(idle + 60 * 1024 * 1024, MEGABYTES_200):  # noqa: ASYNC110  another process has no event to wait for
                await asyncio.sleep(0.1)


async def test_a_stream_without_end_does_not_go_on_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A legacy client's leaving cancels nothing; but a tool that then says more than an answer may hold is left, too."""
    monkeypatch.setattr(watch, "UNHEARD_BYTES", 1_000_000)
    gone, left = asyncio.Event(), asyncio.Event()
    log = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"%s"}}' % (b"x" * 10_000)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"data: " + log + b"\n\n")
                await writer.drain()
                await asyncio.sleep(0.001 if gone.is_set() else 0.05)
        left.set()

    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "attacks.yaml").write_text(POLICY, encoding="utf-8")
    async with await asyncio.start_server(endless, "127.0.0.1", 0) as server:
        tools = {"up": {"mcp": {"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"}}}
        async with running(tmp_path, tools, policies=str(tmp_path / "policies"), pins={"up": [{"name": "t"}]}) as made:
            headers = made.headers() | {"accept": "text/event-stream, application/json"}
            async with httpx.AsyncClient(headers=headers) as client:
                body = call("t", modern=False)
                async with client.stream("POST", f"{made.url}/mcp/up", json=body) as answer:
                    await anext(answer.aiter_bytes())
            gone.set()
            await asyncio.wait_for(left.wait(), 20)
        (end,) = [record for record in made.records() if record["kind"] == "completion"]
    assert (end["error"], end["status"]) == ("client_gone", 200)
