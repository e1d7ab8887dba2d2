"""Tools that are down, slow, silent, endless, or talk nonsense: each call has a clear answer in time and the right completion."""

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from tests.attacks.test_upstreams import POLICY
from tests.servers.gateway import Running, running
from tests.servers.mcp_edge import call

from whygate.http import edge as http_edge
from whygate.mcp import edge as mcp_edge
from whygate.transport.refusals import NOT_SENT
from whygate.transport.upstream import UpstreamError, Upstreams

TIMEOUT_S = 0.5
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
MEGABYTE = b"x" * 1_000_000
Act = Callable[[asyncio.StreamWriter, bytes], Awaitable[bool]]
"""Answers one request, of which it gets the body; whether the connection stays open."""


class Tool:
    """A server of raw bytes over TCP, with connections that are kept alive."""

    def __init__(self) -> None:
        self.act: Act = _whole(b"")
        self.bodies: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [
                    line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                ]
                self.bodies.append(await reader.readexactly(int(lengths[0]) if lengths else 0))
                if not await self.act(writer, self.bodies[-1]):
                    break
        writer.close()


def _result(body: bytes, text: str = "ok", **changed: object) -> bytes:
    asked = json.loads(body) if body else {}
    result = {"content": [{"type": "text", "text": text}]}
    return json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), "result": result} | changed).encode()


def _with_length(body: bytes, more: bytes = b"", length: int | None = None) -> bytes:
    return JSON_HEAD + b"Content-Length: %d\r\n" % (len(body) if length is None else length) + more + b"\r\n" + body


def _whole(data: bytes, *, stays: bool = True, waits: bool = False) -> Act:
    """The same bytes whatever was asked; then the connection is closed, kept, or kept in silence."""

    async def act(writer: asyncio.StreamWriter, _: bytes) -> bool:
        writer.write(data)
        await writer.drain()
        if waits:
            await asyncio.sleep(30)  # cut short when the gateway hangs up
        return stays

    return act


def _made(make: Callable[[bytes], bytes], *, stays: bool = True) -> Act:
    """Bytes that depend on what was asked."""

    async def act(writer: asyncio.StreamWriter, body: bytes) -> bool:
        return await _whole(make(body), stays=stays)(writer, body)

    return act


def _endless(head: bytes, part: bytes, count: int) -> Act:
    async def act(writer: asyncio.StreamWriter, _: bytes) -> bool:
        writer.write(head)
        for _n in range(count):
            writer.write(part)
            await writer.drain()
        return False

    return act


class Case(NamedTuple):
    act: Act
    http: str
    """Of a plain HTTP tool: what the agent sees (a status, or that the answer breaks off), and the completion's code."""
    mcp: str
    """Of an MCP server: the completion's code; empty where the answer is passed on."""
    seconds: float = 0.0
    """How long it must take at least."""


PASSED, FAILED, LATE, LARGE = "", "upstream.failed", "upstream.timeout", "result.too_large"
CASES = {
    "silence": Case(_whole(b"", waits=True), "504 upstream.timeout", LATE, TIMEOUT_S),
    "half a head": Case(_whole(JSON_HEAD, waits=True), "504 upstream.timeout", LATE, TIMEOUT_S),
    "half a body": Case(_whole(_with_length(b"{", length=99), waits=True), "breaks upstream.timeout", LATE, TIMEOUT_S),
    "half a stream": Case(_whole(STREAM_HEAD + b"\r\n: x\n\n", waits=True), "breaks upstream.timeout", LATE, TIMEOUT_S),
    "a body broken off": Case(_whole(_with_length(b"{", length=99), stays=False), "breaks upstream.failed", FAILED),
    "chunks broken off": Case(
        _whole(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", stays=False),
        "breaks upstream.failed",
        FAILED,
    ),
    "a stream broken off": Case(
        _whole(STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\n: x\n\r\n", stays=False),
        "breaks upstream.failed",
        FAILED,
    ),
    "a stream without the answer": Case(_whole(STREAM_HEAD + b"\r\n: x\n\n", stays=False), "200", FAILED),
    "not HTTP": Case(_whole(b"SSH-2.0-OpenSSH_9.2\r\n", stays=False), "502 upstream.failed", FAILED),
    "not JSON": Case(_whole(_with_length(b"<html>no</html>")), "200", FAILED),
    "no message": Case(_whole(_with_length(b"[]")), "200", FAILED),
    "nothing": Case(_whole(_with_length(b"")), "200", FAILED),
    "another id": Case(_made(lambda body: _with_length(_result(body, id=999))), "200", FAILED),
    "not UTF-8": Case(_made(lambda body: _with_length(_result(body, "@").replace(b"@", b"\xff"))), "200", FAILED),
    "packed unasked": Case(
        _made(lambda body: _with_length(gzip.compress(_result(body)), b"Content-Encoding: gzip\r\n")), "200", FAILED
    ),
    "a length too short": Case(
        _made(lambda body: _with_length(_result(body), length=len(_result(body)) - 3)), "200", FAILED
    ),
    "two lengths": Case(
        _whole(_with_length(b"{}", b"Content-Length: 1\r\n"), stays=False), "502 upstream.failed", FAILED
    ),
    "headers without end": Case(
        _whole(b"HTTP/1.1 200 OK\r\nX: " + 3 * MEGABYTE, stays=False), "502 upstream.failed", FAILED
    ),
    "too many headers": Case(
        _whole(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", stays=False), "502 upstream.failed", FAILED
    ),
    "word in between": Case(
        _made(lambda body: b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + _with_length(_result(body))), "200", PASSED
    ),
    "an event without end": Case(_endless(STREAM_HEAD + b"\r\ndata: ", MEGABYTE, 18), "200", LARGE),
    "a body without end": Case(_endless(JSON_HEAD + b"\r\n", MEGABYTE, 18), "200", LARGE),
    "a body told to be large": Case(_endless(_with_length(b"", length=18_000_000), MEGABYTE, 18), "200", LARGE),
}


@pytest.fixture
def tool() -> Tool:
    return Tool()


@pytest.fixture
async def gateway(tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    for edge in (http_edge, mcp_edge):
        monkeypatch.setattr(edge, "Upstreams", lambda **_: Upstreams(read_timeout_s=TIMEOUT_S))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "attacks.yaml").write_text(POLICY.replace("up/*", '*/*", "up/*'), encoding="utf-8")
    server = await asyncio.start_server(tool, "127.0.0.1", 0)
    good = await asyncio.start_server(_good(), "127.0.0.1", 0)
    operation = {"name": "get", "method": "GET", "path": "/x/{id}", "class": "read"}
    tools: dict[str, object] = {}
    for name, url in {
        "": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        "good": f"http://127.0.0.1:{good.sockets[0].getsockname()[1]}",
        "down": "http://127.0.0.1:9",
        "lost": "http://nowhere.invalid",
    }.items():
        tools[f"api{name}"] = {"http": {"url": url}, "operations": [operation]}
        tools[f"up{name}"] = {"mcp": {"url": url}}
    pins = {name: [{"name": "t"}] for name in tools if name.startswith("up")}
    async with server, good, running(tmp_path, tools, policies=str(tmp_path / "policies"), pins=pins) as made:
        yield made


def _good() -> Tool:
    made = Tool()
    made.act = _made(lambda body: _with_length(_result(body)))
    return made


@contextlib.asynccontextmanager
async def _agent(gateway: Running) -> AsyncIterator[httpx.AsyncClient]:
    headers = gateway.headers() | {"accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        yield client


async def _seen(client: httpx.AsyncClient, name: str) -> str:
    """What an agent sees of a plain HTTP tool."""
    try:
        answer = await client.get(f"/http/{name}/x/1")
    except httpx.RemoteProtocolError:
        return "breaks"
    except httpx.DecodingError:
        return "200"
    code = answer.json()["code"] if answer.headers["content-type"] == "application/problem+json" else ""
    return f"{answer.status_code} {code and answer.json()['title']}".strip()


async def _ends(gateway: Running, tool: str) -> list[dict[str, object]]:
    """Completions of the calls of a tool, once all have ended."""
    await gateway.gateway.stop()
    records = gateway.records()
    mine = {one["id"] for one in records if one["kind"] == "decision" and one["resource"].get("id") == tool}
    ends = [one for one in records if one["kind"] == "completion" and one["decision"] in mine]
    assert len(ends) == len(mine)
    return ends


@pytest.mark.parametrize("name", CASES)
async def test_a_plain_http_tool_that_fails(gateway: Running, tool: Tool, name: str) -> None:
    """A problem document before the answer began, a broken connection after it; the completion says which; others go on."""
    case = CASES[name]
    tool.act = case.act
    began = time.monotonic()
    async with _agent(gateway) as client:
        failing = asyncio.ensure_future(_seen(client, "api"))
        assert await _seen(client, "apigood") == "200"
        seen = await failing
    assert case.seconds <= time.monotonic() - began < 8
    (end,) = await _ends(gateway, "api/get")
    assert (f"{seen} {end.get('code', '')}" if seen == "breaks" else seen).strip() == case.http
    assert end.get("code", "") == (case.http.split()[1] if " " in case.http else "")
    assert len(tool.bodies) == 1
    if seen == "breaks":
        assert end["status"] == 200


@pytest.mark.parametrize("name", CASES)
async def test_an_mcp_server_that_fails(gateway: Running, tool: Tool, name: str) -> None:
    """A tool result that a model can read, under the decision that allowed the call; the completion has the code."""
    case = CASES[name]
    tool.act = case.act
    began = time.monotonic()
    async with _agent(gateway) as client:
        failing = asyncio.ensure_future(client.post("/mcp/up", json=call("t", modern=False)))
        good = await client.post("/mcp/upgood", json=call("t", modern=False))
        answer = await failing
    assert good.json()["result"]["content"][0]["text"] == "ok"
    assert case.seconds <= time.monotonic() - began < 8
    text = answer.text.rpartition("data: ")[2] if "event-stream" in answer.headers["content-type"] else answer.text
    result = json.loads(text)["result"]
    (end,) = await _ends(gateway, "up/t")
    assert end.get("code", "") == case.mcp
    assert result.get("isError", False) == bool(case.mcp)
    assert case.mcp in result["content"][0]["text"]
    assert len(tool.bodies) == 1


@pytest.mark.parametrize("where", ["down", "lost"])
async def test_a_tool_that_is_not_there_has_not_acted(gateway: Running, where: str) -> None:
    """Refused or without an address: the agent is told that nothing was sent, so it may try again; so says the record."""
    async with _agent(gateway) as client:
        plain = await client.get(f"/http/api{where}/x/1")
        answer = await client.post(f"/mcp/up{where}", json=call("t", modern=False))
    assert (plain.status_code, plain.json()["detail"]) == (502, NOT_SENT)
    assert NOT_SENT in answer.json()["result"]["content"][0]["text"]
    ends = await _ends(gateway, f"api{where}/get") + await _ends(gateway, f"up{where}/t")
    assert [(end["code"], end["error"]) for end in ends] == [("upstream.failed", "not_sent")] * 2


async def test_a_second_answer_is_dropped(gateway: Running, tool: Tool) -> None:
    """What the agent gets is what was recorded: of two responses to one request the first, in a stream and over HTTP."""
    event = b"data: %s\n\n"
    tool.act = _made(
        lambda body: STREAM_HEAD + b"\r\n" + event % _result(body, "one") + event % _result(body, "two"), stays=False
    )
    async with _agent(gateway) as client:
        stream = await client.post("/mcp/up", json=call("t", modern=False))
        tool.act = _made(lambda body: _with_length(_result(body, "one")) + _with_length(_result(body, "smuggled")))
        for _ in range(20):
            answers = [await client.post("/mcp/up", json=call("t", modern=False)), await client.get("/http/api/x/1")]
            assert {one.json()["result"]["content"][0]["text"] for one in answers} == {"one"}
    assert "one" in stream.text
    assert "two" not in stream.text


async def test_a_connection_that_dies_between_calls_never_makes_two_of_one(tool: Tool) -> None:
    """Kept connections that a tool closes, resets, or reads from and drops: each call reaches it once at the most."""

    async def drops_the_second(writer: asyncio.StreamWriter, body: bytes) -> bool:
        if writer in answered:
            return False  # read, perhaps acted on, and never answered
        answered.add(writer)
        return await _whole(_with_length(body))(writer, body)

    async def closes_soon(writer: asyncio.StreamWriter, body: bytes) -> bool:
        await _whole(_with_length(body))(writer, body)
        await asyncio.sleep(0.001)
        return False

    answered: set[asyncio.StreamWriter] = set()
    pool = Upstreams(read_timeout_s=5)
    failed: list[bool] = []

    async def send(url: str, number: int) -> None:
        try:
            async with pool.send("POST", url, [], b"%d" % number) as answer:
                assert await answer.read(100) == b"%d" % number
        except UpstreamError as error:
            failed.append(error.sent)

    async with await asyncio.start_server(tool, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for act in (drops_the_second, closes_soon):
            tool.act = act
            for batch in range(10):
                await asyncio.gather(*(send(url, batch * 16 + number) for number in range(16)))
            assert len(tool.bodies) == len(set(tool.bodies))
            tool.bodies.clear()
        await pool.close()
    assert failed, "no connection died at a bad moment: the test does not test"
    assert all(failed), "what may have been sent was taken for unsent"
