"""An edge before several servers, and clients of its merged address, byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.servers.mcp_edge import META, Canned, Gateway, Seen, call, gateway, routing

from whygate.flow.ports import Admission
from whygate.mcp.backend import Server
from whygate.testing.gate import FakeGate
from whygate.testing.serve import served

SCRIPT = Path(__file__).with_name("stdio_server.py")
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "c", "version": "1"},
}
DECISION = "dev.whygate/decision"
SCHEMA = b'{ "type":"object" ,"properties":{"region":{"type":"string","x-mcp-header":"Region"},"n":{"maximum":1.00}}}'


def rpc(method: str, identity: int | None = 1, **params: Any) -> dict[str, Any]:
    """A request, or, without ``identity``, a notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params} | ({} if identity is None else {"id": identity})


class Tools(Canned):
    """An upstream with tools of these names, modern or legacy."""

    def __init__(self, *names: str, modern: bool = True) -> None:
        super().__init__()
        self.modern = modern
        self.pages = [list(names)]
        self.called: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {
            "result": {"content": [{"type": "text", "text": "ok"}], "isError": False}
        }
        self.sessions = 0
        self.ended: list[str] = []
        self.answer = self._answer

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(seen.body) for seen in self.seen if seen.body]

    def calls(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.body and json.loads(seen.body)["method"] == "tools/call"]

    def _answer(self, seen: Seen) -> bytes:
        self.status, self.headers = 200, [(b"content-type", b"application/json")]
        if seen.method == "DELETE":
            self.ended.append(seen.headers["mcp-session-id"])
        if not seen.body or "id" not in (message := json.loads(seen.body)):
            self.status = 202
            return b""
        made = self._made(message)
        return json.dumps({"jsonrpc": "2.0", "id": message["id"]}).encode()[:-1] + b"," + made[1:]

    def _made(self, message: dict[str, Any]) -> bytes:
        method = message["method"]
        if method == "server/discover" and self.modern:
            hello = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
            return json.dumps({"result": hello}).encode()
        if method == "initialize" and not self.modern:
            self.sessions += 1
            self.headers.append((b"mcp-session-id", b"s-%d" % self.sessions))
            hello = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {}}
            return json.dumps({"result": hello}).encode()
        if method == "tools/list":
            number = int(message["params"].get("cursor", 0))
            tools = b",".join(
                b'{"name":"%s","inputSchema":%s,"_meta":{"k":1.0}}' % (name.encode(), SCHEMA)
                for name in self.pages[number]
            )
            more = b',"nextCursor":"%d"' % (number + 1) if number + 1 < len(self.pages) else b""
            era = b',"resultType":"complete","ttlMs":9000,"cacheScope":"public"' if self.modern else b""
            return b'{"result":{"tools":[' + tools + b"]" + more + era + b"}}"
        if method == "tools/call":
            return json.dumps(self.called(message)).encode()
        self.status = 400 if self.modern else 200
        return b'{"error":{"code":-32601,"message":"Method not found"}}'


@asynccontextmanager
async def before(gate: FakeGate, *others: Server, **upstreams: Canned) -> AsyncIterator[Gateway]:
    """An edge before these upstreams, under their names."""
    async with AsyncExitStack() as stack:
        servers = [
            Server(name=name, url=await stack.enter_async_context(served(upstream)), read_timeout_s=20)
            for name, upstream in upstreams.items()
        ]
        first, *rest = (*servers, *others)
        yield await stack.enter_async_context(gateway(first, gate, *rest, suspended=("idle",)))


async def post(client: httpx.AsyncClient, message: Any, **headers: str) -> httpx.Response:
    return await client.post(
        "", json=message, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


async def begin(client: httpx.AsyncClient, **changed: Any) -> dict[str, str]:
    """Open a session; its header."""
    answer = await post(client, rpc("initialize", **(HELLO | changed)))
    assert answer.status_code == 200, answer.text
    session = {"mcp-session-id": answer.headers["mcp-session-id"]}
    told = await client.post("", json=rpc("notifications/initialized", None), headers=session)
    assert (told.status_code, told.content) == (202, b"")
    return session


async def listed(client: httpx.AsyncClient, *, modern: bool = True) -> dict[str, Any]:
    message = rpc("tools/list", **({"_meta": META} if modern else {}))
    answer = await client.post("", json=message, headers=routing("tools/list", None) if modern else {})
    result: dict[str, Any] = answer.json()["result"]
    return result


async def called(client: httpx.AsyncClient, name: str, args: Any = None, **more: Any) -> httpx.Response:
    return await client.post("", json=call(name, args, **more), headers=routing(name=name))


def decided(gate: FakeGate, method: str = "tools/call") -> list[Admission]:
    """Decisions about requests of this method; each that was allowed has been completed."""
    found = [each for each in gate.admitted if each.call.method == method]
    done = [admission for admission, _ in gate.completed]
    assert [each for each in found if each.allowed and done.count(each) != 1] == []
    return found


def names(result: dict[str, Any]) -> list[str]:
    return [tool["name"] for tool in result["tools"]]


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


async def until(found: Callable[[], bool]) -> None:
    """Return once ``found`` is true; five seconds at the most."""
    async with asyncio.timeout(5):
        while not found():  # noqa: ASYNC110  # what changes is another process's or server's, and tells nobody
            await asyncio.sleep(0.01)
