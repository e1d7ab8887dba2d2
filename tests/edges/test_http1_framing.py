"""Requests that can't be read in one way only: each is recorded once, explained, and the last on its connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.edges.http1 import App, Client, server
from tests.servers.gateway import Running, billing_tool, running

from whygate.flow import repeats
from whygate.testing.billing import BillingServer

HEAD = b"POST /http/billing/refunds HTTP/1.1\r\nHost: a\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
UNREADABLE = {
    "length and chunks": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "no length": HEAD + b"Content-Length:\r\n\r\n",
    "an endless length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "another coding": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare line feed in a header": b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
    "a carriage return": b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "no path": b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0 in words": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "another coding behind an upgrade": HEAD + b"Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: x\r\n\r\n",
    "a bad chunk's size": CHUNKS + b"x\r\nabc\r\n0\r\n\r\n",
    "a bad chunk's end": CHUNKS + b"3\r\nabcX\r\n0\r\n\r\n",
    "a blank behind a chunk's size": CHUNKS + b"3 \r\nabc\r\n0\r\n\r\n",
}
TOO_LARGE = {
    "a long target": b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 70_000),
    "a long header": b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"a" * 70_000),
    "an endless header": b"GET / HTTP/1.1\r\nX: " + b"a" * 900_000,
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 129 + b"\r\n",
    "an endless trailer": CHUNKS + b"0\r\nX: " + b"a" * 900_000,
    "an endless extension": CHUNKS + b"1;" + b"a" * 900_000,
}


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    async with running(tmp_path, {"billing": billing_tool(billing, tmp_path)}) as made:
        yield made


async def _connect(gateway: Running) -> Client:
    host, _, port = gateway.gateway.config.listen.rpartition(":")
    return Client(*await asyncio.open_connection(host, int(port)))


async def _told(client: Client, wire: bytes) -> dict[str, str]:
    """The one answer to ``wire`` and a request behind it, after which the connection ends."""
    client.write(wire + b"GET /http/billing/invoices/1042 HTTP/1.1\r\nHost: a\r\n\r\n")
    _, headers, body = await client.answer()
    assert headers.get(b"connection") == b"close", (wire[:80], body)
    assert await client.rest() == b""
    client.writer.close()
    told: dict[str, str] = json.loads(body)
    return told


async def test_what_can_not_be_read_is_recorded_and_explained(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record, one problem document with its id, a reason and a way forward; nothing behind it is a request."""
    monkeypatch.setattr(repeats, "FIRST", 1000)  # strangers' refusals are counted later on
    key = gateway.headers()["authorization"].encode()
    known = CHUNKS.replace(b"Host: a", b"Host: a\r\nAuthorization: " + key)
    for kinds, code in ((UNREADABLE, "request.malformed"), (TOO_LARGE, "request.too_large")):
        for kind, wire in kinds.items():
            before = len(gateway.decisions())
            client = await _connect(gateway)
            # A stranger's body is not read: whoever breaks one is somebody.
            told = await _told(client, wire.replace(CHUNKS, known) if CHUNKS in wire else wire)
            assert (told["code"], told["outcome"]) == (code, "blocked"), kind
            assert told["note"], kind
            (record,) = gateway.decisions()[before:]
            assert (record["id"], record["reason"]["code"]) == (told["id"], code), kind


async def test_targets_that_are_no_path_of_ours_are_refused_like_any_other(gateway: Running) -> None:
    """``*``, an authority, another host: recorded and explained, and the connection goes on where it can."""
    client = await _connect(gateway)
    for line in (b"OPTIONS *", b"OPTIONS http://other.example", b"GET ftp://a/b", b"DELETE /"):
        client.write(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        _, _, body = await client.answer()
        assert json.loads(body)["id"] in {record["id"] for record in gateway.decisions()}
    client.writer.close()


async def test_requests_before_one_that_can_not_be_read_are_answered() -> None:
    """However its bytes are cut, and whatever it is: those before it are whole, and it is refused when its turn comes."""
    good = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    for kind, bad in (UNREADABLE | TOO_LARGE).items():
        async with server() as (app, _, connect):
            client = await connect()
            client.write(good + bad)
            assert (await client.answer())[2] == b"GET /1 "
            await client.answer(head=True)
            status, _, body = await client.answer()
            assert (status in (400, 431, 501, 505), body) == (True, b"unreadable"), kind
            assert await client.rest() == b""
            assert len(app.seen) == 2


async def test_a_body_that_breaks_after_an_answer_began_only_ends_the_connection() -> None:
    """There is no second answer to one request."""
    async with server() as (app, _, connect):
        client = await connect()
        client.write(CHUNKS.replace(b"http/billing/refunds", b"stream"))
        await app.entered.wait()
        client.write(b"no chunk\r\n")
        app.let.set()
        assert (await client.answer())[2] == b"onetwo"
        assert await client.rest() == b""


async def test_what_stands_behind_the_last_request_gets_no_answer() -> None:
    """Garbage behind ``Connection: close`` neither costs the answer nor adds one."""
    async with server() as (_, _, connect):
        client = await connect()
        client.write(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\0\0garbage")
        assert (await client.answer())[2] == b"GET /1 "
        assert await client.rest() == b""


async def test_a_head_just_within_its_bound_is_taken() -> None:
    """64 KiB and 128 headers are allowed, alone or with a large body in one piece."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n" + b"X: %b\r\n" % (b"y" * 450) * 126 + b"\r\n"
    async with server() as (app, _, connect):
        client = await connect()
        for _ in range(2):
            client.write(head + b"x" * 100_000)
            assert (await client.answer())[0] == 200
        assert len(app.seen) == 2
        assert isinstance(app, App)


async def test_a_stranger_who_asks_first_is_refused_at_once(gateway: Running) -> None:
    """Nobody is told to send a body that nobody will read; nor whoever announces too large a one."""
    head = (
        f"POST /http/billing/refunds HTTP/1.1\r\nHost: {gateway.gateway.config.listen}\r\n"
        "Expect: 100-continue\r\nContent-Length: 5000000\r\n"
    )
    key = f"Authorization: {gateway.headers()['authorization']}\r\n"
    for more, told in (("", (401, "agent.unauthenticated")), (key, (413, "request.too_large"))):
        client = await _connect(gateway)
        client.write(f"{head}{more}\r\n".encode())
        status, headers, body = await client.answer()
        assert ((status, json.loads(body)["code"]), headers[b"connection"]) == (told, b"close")
        assert await client.rest() == b""
        client.writer.close()
