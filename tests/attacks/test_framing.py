"""HTTP by hand: what two servers in a row would cut into different requests, and what HTTP itself leaves open. Through a real
gateway, over real sockets, before a tool that notes what it gets.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from tests.servers.gateway import Running, billing_tool, running
from tests.servers.mcp_edge import Canned
from tests.servers.raw import exchange

from whygate.testing.billing import BillingServer
from whygate.testing.serve import served

POLICY: Final = """
policy: all
version: 1
owner: all@example.com
agents: ["role:support-agent"]
rules:
  - {id: all, tools: ["billing/refund", "billing/invoice_get", "slow/*"], permit: {}, why: This test is not about rules.}
  - {id: empty, tools: ["slow/file"], when: "has(args.data) && args.data == []", deny: {}, why: What a rule reads is bounded.}
"""
BODY: Final = '{"amount_cents":1}'
CHUNKS: Final = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"
LENGTH: Final = f"content-length: {len(BODY)}\r\n"
CHUNKED: Final = "transfer-encoding: chunked\r\n"
HIDDEN: Final = "GET /http/billing/customers/export HTTP/1.1\r\nHEADERS\r\n"
"""A request inside another one's body."""
BARE: Final = "GET /http/billing/customers/export HTTP/1.1\r\n\r\n"
POST: Final = "POST /http/billing/refunds HTTP/1.1\r\nHEADERS"
GET: Final = "GET /http/billing/invoices/1042 HTTP/1.1\r\nHEADERS"
REFUSED: Final = {
    "length and chunks": f"{POST}content-length: {len(CHUNKS)}\r\n{CHUNKED}\r\n{CHUNKS}{HIDDEN}",
    "chunks and length": f"{POST}{CHUNKED}content-length: 4\r\n\r\n{CHUNKS}{HIDDEN}",
    "another coding": f"{POST}transfer-encoding: xchunked\r\n\r\n{CHUNKS}",
    "another coding and a length": f"{POST}transfer-encoding: xchunked\r\n{LENGTH}\r\n{BODY}",
    "identity, chunked": f"{POST}transfer-encoding: identity, chunked\r\n\r\n{CHUNKS}",
    "chunked, identity": f"{POST}transfer-encoding: chunked, identity\r\n\r\n{CHUNKS}",
    "two codings": f"{POST}{CHUNKED}transfer-encoding: identity\r\n\r\n{CHUNKS}",
    "a coding with a space before its colon": f"{POST}transfer-encoding : chunked\r\n{LENGTH}\r\n{BODY}",
    "a coding behind a vertical tab": f"{POST}transfer-encoding: \x0bchunked\r\n\r\n{CHUNKS}",
    "two lengths": f"{POST}{LENGTH}content-length: 3\r\n\r\n{BODY}",
    "one length twice": f"{POST}{LENGTH}{LENGTH}\r\n{BODY}",
    "a list of lengths": f"{POST}content-length: {len(BODY)}, {len(BODY)}\r\n\r\n{BODY}",
    "a length with a sign": f"{POST}content-length: +{len(BODY)}\r\n\r\n{BODY}",
    "a negative length": f"{POST}content-length: -1\r\n\r\n{BODY}",
    "a folded header": f"{POST}x-a: b\r\n c: d\r\n{LENGTH}\r\n{BODY}",
    "bare line feeds": f"{POST}{LENGTH}\r\n".replace("\r\n", "\n") + BODY,
    "a bare carriage return": f"{POST}x-a: b\rc: d\r\n{LENGTH}\r\n{BODY}",
    "a NUL": f"{POST}x-a: b\x00c\r\n{LENGTH}\r\n{BODY}",
    "a space in a name": f"{POST}x a: b\r\n{LENGTH}\r\n{BODY}",
    "a chunk that ends in a line feed": f"{POST}{CHUNKED}\r\n{len(BODY):x}\n{BODY}\r\n0\r\n\r\n",
    "a chunk's size in no hexadecimal": f"{POST}{CHUNKED}\r\n0x{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk of endless size": f"{POST}{CHUNKED}\r\nffffffffffffffffff\r\n{BODY}\r\n0\r\n\r\n",
    "a length among the trailers": f"{POST}{CHUNKED}\r\n{len(BODY):x}\r\n{BODY}\r\n0\r\ncontent-length: 999\r\n\r\n",
    "chunks in HTTP/1.0": f"{POST}{CHUNKED}\r\n{CHUNKS}".replace("HTTP/1.1", "HTTP/1.0"),
    "HTTP/2.0 in a request line": f"{GET}\r\n".replace("HTTP/1.1", "HTTP/2.0"),
    "HTTP/2's preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a request in a GET's body": f"{GET}content-length: {len(BARE)}\r\n\r\n{BARE}",
    "two hosts": f"{GET}host: evil.example\r\n\r\n",
    "another host in the target": f"{GET}\r\n".replace("GET /", "GET http://evil.example/"),
    "a websocket": f"{GET}connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n",
    "CONNECT": "CONNECT 10.0.0.1:80 HTTP/1.1\r\nHEADERS\r\n",
    "OPTIONS *": "OPTIONS * HTTP/1.1\r\nHEADERS\r\n",
    "a number sign in the path": f"{GET}\r\n".replace("/1042", "/1042#x"),
    "a number sign in the query": f"{GET}\r\n".replace("/1042", "/1042?a=1#&b=2"),
    "a path in raw UTF-8": f"{GET}\r\n".replace("/1042", "/\xc3\xa9"),
}
"""Each of them sent whole, in one write. ``HEADERS`` is what a good request has."""
PASSED: Final = {
    "chunks": (f"{POST}{CHUNKED}\r\n{CHUNKS}", BODY),
    "chunks with an extension": (f"{POST}{CHUNKED}\r\n{len(BODY):x};a=b\r\n{BODY}\r\n0\r\n\r\n", BODY),
    "chunks and a trailer": (f"{POST}{CHUNKED}\r\n{len(BODY):x}\r\n{BODY}\r\n0\r\nx-amount: 9\r\n\r\n", BODY),
    "HTTP/1.0": (f"{GET}\r\n".replace("HTTP/1.1", "HTTP/1.0"), ""),
    "an offer of h2c": (
        f"{GET}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        "",
    ),
    "an expectation": (f"{POST}expect: 100-continue\r\n{LENGTH}\r\n{BODY}", BODY),
}


@pytest.fixture
def slow() -> Canned:
    return Canned()


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer, slow: Canned) -> AsyncIterator[Running]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "all.yaml").write_text(POLICY, encoding="utf-8")
    async with served(slow) as url:
        operations = [
            {"name": "news", "method": "GET", "path": "/news", "class": "read"},
            {"name": "file", "method": "PUT", "path": "/file", "class": "write"},
            {"name": "head", "method": "HEAD", "path": "/news", "class": "read"},
        ]
        tools = {
            "billing": billing_tool(billing, tmp_path),
            "slow": {"http": {"url": f"{url}/base"}, "operations": operations},
        }
        async with running(tmp_path, tools, policies=str(policies)) as made:
            yield made


def _bytes(gateway: Running, text: str) -> bytes:
    (credential,) = gateway.headers().values()
    host = gateway.url.removeprefix("http://")
    good = f"host: {host}\r\nauthorization: {credential}\r\ncontent-type: application/json\r\n"
    return text.replace("HEADERS", good).encode("latin-1")


@pytest.mark.parametrize("name", REFUSED)
async def test_what_can_be_cut_in_two_ways_is_refused(gateway: Running, billing: BillingServer, name: str) -> None:
    """One answer with its reason, its record, the end of the connection, and nothing at the tool: the hidden request least."""
    answers = await exchange(gateway.url, _bytes(gateway, REFUSED[name]), wait_s=0.3)
    assert len(answers) == 1, answers
    assert answers[0].status in (400, 403, 404, 405), answers
    assert answers[0].headers["content-type"] == "application/problem+json"
    recorded = [one["reason"]["code"] for one in gateway.decisions()]
    assert recorded == [answers[0].headers["whygate-reason"]]
    assert recorded[0].startswith("request.")
    assert billing.seen == []


@pytest.mark.parametrize("name", PASSED)
async def test_what_can_be_cut_in_one_way_only_passes(gateway: Running, billing: BillingServer, name: str) -> None:
    """The tool gets it in our own framing, without trailers, expectations and offers."""
    sent, body = PASSED[name]
    answers = await exchange(gateway.url, _bytes(gateway, sent), wait_s=0.3)
    assert [answer.headers["whygate-outcome"] for answer in answers] == ["permitted"]
    (seen,) = billing.seen
    assert seen["body"] == body.encode()
    assert (
        not {"transfer-encoding", "trailer", "x-amount", "expect", "upgrade", "http2-settings", "te"}
        & seen["headers"].keys()
    )


async def test_requests_sent_ahead_are_decided_one_by_one(gateway: Running, billing: BillingServer) -> None:
    """Pipelining is no way around: the second, which no rule permits, is refused with a decision of its own."""
    sent = _bytes(gateway, f"{GET}\r\n{HIDDEN}")
    answers = await exchange(gateway.url, sent, wait_s=0.3)
    assert [answer.headers["whygate-outcome"] for answer in answers] == ["permitted", "blocked"]
    assert [one["path"] for one in billing.seen] == ["/invoices/1042"]
    assert len(gateway.decisions()) == 2


async def test_whoever_expects_is_told_to_go_on_before_the_body(gateway: Running, billing: BillingServer) -> None:
    """RFC 9110 section 10.1.1; and whoever is nobody is refused before the body was sent."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(_bytes(gateway, f"{POST}expect: 100-continue\r\n{LENGTH}\r\n"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    assert billing.seen == []
    writer.write(BODY.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_a_body_above_the_cap_never_reaches_the_tool(gateway: Running, slow: Canned) -> None:
    """In chunks, so that nobody knows its size before: nothing of it streams through undecided."""

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"data": "'
        for _ in range(80):
            yield b"x" * 65_536

    headers = gateway.headers() | {"content-type": "application/json"}
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.put(f"{gateway.url}/http/slow/file", content=endless(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")
    assert slow.seen == []


async def test_an_upload_in_many_pieces_is_decided_as_a_whole(gateway: Running, slow: Canned) -> None:
    """Below the cap it is read to its end: refused where no rule can look at so much, else forwarded once, byte for byte."""
    pieces = [b'{"data": ["', *[b"y" * 12_000 + b'","'] * 255, b'"]}']

    async def trickle() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)

    slow.answer = lambda _: b"{}"
    headers = gateway.headers() | {"content-type": "application/json"}
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.put(f"{gateway.url}/http/slow/file", content=trickle(), headers=headers)
    assert answer.headers["whygate-reason"] == "args.too_large"
    assert len(b"".join(pieces)) > 3_000_000
    assert slow.seen == []
    pieces = [b'{"data": ["', *[b"y" * 800 + b'","'] * 255, b'"]}']
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.put(f"{gateway.url}/http/slow/file", content=trickle(), headers=headers)
    assert answer.status_code == 200
    assert [seen.body for seen in slow.seen] == [b"".join(pieces)]


async def test_what_a_tool_streams_arrives_as_it_is_sent(gateway: Running, slow: Canned) -> None:
    """The first event is there while the tool still holds the second back; the whole is completed as one answer."""
    slow.hold = asyncio.Event()
    slow.headers = [(b"content-type", b"text/event-stream")]
    slow.answer = lambda _: [b"data: first\n\n", b"data: second\n\n"]
    async with (
        httpx.AsyncClient(timeout=20, headers=gateway.headers()) as client,
        client.stream("GET", f"{gateway.url}/http/slow/news") as answer,
    ):
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"data: first\n\n"
        slow.hold.set()
        assert b"".join([chunk async for chunk in chunks]) == b"data: second\n\n"
        assert answer.headers["content-type"] == "text/event-stream"


async def test_head_is_an_operation_of_its_own(gateway: Running, slow: Canned) -> None:
    """What permits GET does not permit HEAD; where HEAD is named, its answer has no body."""
    slow.answer = lambda _: b""
    slow.headers = [(b"content-length", b"17"), (b"content-type", b"application/json")]
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        unnamed = await client.head(f"{gateway.url}/http/billing/invoices/1042")
        named = await client.head(f"{gateway.url}/http/slow/news")
    assert (unnamed.status_code, unnamed.headers["whygate-reason"]) == (404, "tool.unknown")
    assert (named.status_code, named.content, named.headers["whygate-outcome"]) == (200, b"", "permitted")


@pytest.mark.parametrize("status", [201, 301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "passed"),
    [
        ("/base/elsewhere?a=1", "/http/slow/elsewhere?a=1"),
        ("OWN/base/elsewhere", "/http/slow/elsewhere"),
        ("elsewhere", "/http/slow/elsewhere"),
        ("OWN/admin", None),
        ("/base/../admin", None),
        ("http://10.0.0.1/inward", None),
        ("//10.0.0.1/inward", None),
        ("http://user:pass@10.0.0.1/", None),
        ("javascript:alert(1)", None),
    ],
)
async def test_a_redirect_leads_through_the_gateway_or_nowhere(
    gateway: Running, slow: Canned, status: int, location: str, passed: str | None
) -> None:
    """It is never followed here. To the tool itself it leads as a call that will be decided; elsewhere not at all."""
    base = gateway.gateway.config.tools["slow"].http
    assert base is not None
    own = base.url.removesuffix("/base")
    slow.status = status
    slow.headers = [(b"location", location.replace("OWN", own).encode()), (b"content-length", b"0")]
    slow.answer = lambda _: b""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.url}/http/slow/news", headers=gateway.headers())
    assert (answer.status_code, answer.headers.get("location")) == (status, passed)
    assert len(slow.seen) == 1
