"""What one client can make the gateway hold, read, start or remember: each of it is bounded in size and in time."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.gateway import Running, billing_tool, running

from whygate.http import edge as http_edge
from whygate.mcp import edge as mcp_edge
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
