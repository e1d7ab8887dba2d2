"""A gateway that is told to stop: what is under way ends in order, nothing new begins, and nothing is left open."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.attacks.test_upstreams import POLICY
from tests.servers.gateway import pin_these
from tests.servers.mcp_edge import META
from tests.servers.served import Served

from whygate.config import from_mapping
from whygate.testing.billing import BillingServer
from whygate.testing.threads import serving

CALL_S = 5.0


class Slow:
    """An MCP server: a call takes ``CALL_S``, or for ever; ``GET`` and a subscription are streams that stay open and silent."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /x"):
                    await asyncio.sleep(CALL_S)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                elif head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                    await reader.read()
                    return
                else:
                    (length,) = (
                        line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
                    )
                    asked = json.loads(await reader.readexactly(int(length)))
                    if asked["method"] == "subscriptions/listen":
                        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                        await reader.read()
                        return
                    if asked["method"] != "tools/call":  # the gateway's own look: it gets no answer that is one
                        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                        continue
                    await asyncio.sleep(3600 if asked["params"]["arguments"].get("for_ever") else CALL_S)
                    answer = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"content": []}}).encode()
                    told = b"Content-Type: application/json\r\nContent-Length: %d" % len(answer)
                    writer.write(b"HTTP/1.1 200 OK\r\n" + told + b"\r\n\r\n" + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


class World(Served):
    async def tool(self, client: httpx.AsyncClient, **arguments: Any) -> httpx.Response:
        params = {"name": "t", "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return await client.post(f"{self.url}/mcp/up", json=body)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[httpx.AsyncClient]:
        headers = self.headers() | {"accept": "application/json, text/event-stream"}
        async with httpx.AsyncClient(headers=headers, timeout=40) as client:
            yield client

    async def under_way(self, calls: int) -> None:
        """Return when so many calls have been allowed and have not ended."""
        async with asyncio.timeout(20):
            while not self.ledger.exists() or len(self.found().open) < calls:  # noqa: ASYNC110  another process has no event to wait for
                await asyncio.sleep(0.05)


@pytest.fixture
def billing() -> Iterator[BillingServer]:
    with serving(BillingServer("the-gateways-own-secret")) as server:
        yield server


@pytest.fixture
async def world(tmp_path: Path, billing: BillingServer) -> AsyncIterator[World]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "slow.yaml").write_text(POLICY, encoding="utf-8")
    async with await asyncio.start_server(Slow(), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        operation = {"name": "get", "method": "GET", "path": "/x/{id}", "class": "read"}
        tools = {"api": {"http": {"url": url}, "operations": [operation]}, "up": {"mcp": {"url": url}}}
        world = World(tmp_path, billing, tools=tools, policies=str(tmp_path / "policies"))
        pin_these(from_mapping(world.config), "up", [{"name": "t"}])
        yield world


LISTEN = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "subscriptions/listen",
    "params": {"notifications": {"toolsListChanged": True}, "_meta": META},
}
LISTENS = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}


async def _stream(request: AbstractAsyncContextManager[httpx.Response], began: asyncio.Event) -> bytes:
    """All of a stream, to its proper end: httpx raises for one that is broken off."""
    async with request as answer:
        began.set()  # though no news has come yet
        return await answer.aread()


@pytest.mark.slow
async def test_calls_finish_streams_end_and_nothing_new_begins(world: World) -> None:
    """Within the time that calls need: /readyz says "stopping" first, then the port is closed; every call has its answer, every
    stream its end, every call its completion; exit code 0.
    """
    began, listening = asyncio.Event(), asyncio.Event()
    async with world.process() as process, world.agent() as client, httpx.AsyncClient() as other:
        stream = asyncio.create_task(_stream(client.stream("GET", f"{world.url}/mcp/up"), began))
        listen = client.stream("POST", f"{world.url}/mcp/up", json=LISTEN, headers=LISTENS)
        news = asyncio.create_task(_stream(listen, listening))
        calls = [asyncio.create_task(world.tool(client)), asyncio.create_task(client.get(f"{world.url}/http/api/x/1"))]
        await began.wait()
        await listening.wait()
        await world.under_way(4)
        process.terminate()
        async with asyncio.timeout(3):
            while await world.readiness(other) == 200:  # noqa: ASYNC110  another process has no event to wait for
                await asyncio.sleep(0.01)
            assert await stream == await news == b""
        assert not any(call.done() for call in calls)
        ready = await other.get(f"{world.operators_url}/readyz")
        assert (ready.status_code, ready.json()["missing"]) == (503, "the gateway is stopping")
        with pytest.raises(httpx.ConnectError):
            await other.get(f"{world.url}/http/api/x/2")
        answers = await asyncio.gather(*calls)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert [answer.status_code for answer in answers] == [200, 200]
    assert "result" in answers[0].json()
    found = world.found()
    assert not found.open
    assert not found.unknown()
    assert found.records[-1]["kind"] == "stop"
    assert world.said.splitlines()[-1] == "Stopped."
    async with world.process():
        assert not world.found().unknown()


@pytest.mark.slow
async def test_a_second_signal_does_not_wait(world: World) -> None:
    """Calls that have not ended are answered, recorded as what nobody knows the end of, and counted in the log."""
    async with world.process() as process, world.agent() as client:
        calls = [
            asyncio.create_task(world.tool(client, for_ever=True)),
            asyncio.create_task(client.get(f"{world.url}/http/api/x/1")),
        ]
        await world.under_way(2)
        process.terminate()
        async with httpx.AsyncClient() as other, asyncio.timeout(10):
            while await world.readiness(other) == 200:  # noqa: ASYNC110  another process has no event to wait for
                await asyncio.sleep(0.01)
        process.terminate()
        mcp, plain = await asyncio.gather(*calls)
        assert await asyncio.wait_for(process.wait(), 8) == 0
    assert mcp.json()["result"]["isError"]
    assert "outcome.unknown" in mcp.json()["result"]["content"][0]["text"]
    assert (plain.status_code, plain.json()["title"]) == (502, "outcome.unknown")
    found = world.found()
    assert not found.open
    assert [(one["code"], one["error"]) for one in found.of("completion")] == [("outcome.unknown", "stopped")] * 2
    assert "2 calls had not ended and were cut off" in world.said
