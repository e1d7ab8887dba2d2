"""The agents' HTTP/1.1 server over raw sockets: what it answers, to whom, and when it stops listening."""

import asyncio
import re

import pytest
from tests.edges.http1 import App, Client, server, until

from whygate.transport import server as module
from whygate.transport.server import AddressInUse, HttpServer

GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /%b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


# --- what can be read ---


async def test_a_connection_carries_one_request_after_another() -> None:
    """Kept alive: lengths, chunks and none, each answer with a date and its own body; trailers and extensions are dropped."""
    async with server() as (app, _, connect):
        client = await connect()
        client.write(GET % b"1?q=%2f")
        status, headers, body = await client.answer()
        assert (status, body) == (200, b"GET /1?q=%2f ")
        assert re.fullmatch(rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers[b"date"])
        client.write(POST % (b"2", 3) + b"abc")
        assert (await client.answer())[2] == b"POST /2 abc"
        client.write(CHUNKED + b"1;x=y\r\na\r\n2\r\nbc\r\n0\r\nAuthorization: nobody\r\n\r\n")
        assert (await client.answer())[2] == b"POST /c abc"
        client.write(GET % b"3")
        assert (await client.answer())[2] == b"GET /3 "
        assert [name for name, _ in app.scopes[-1]["headers"]] == [b"host"]  # a trailer is no header of the next one


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    """One at a time: the second begins when the first has been answered, its body read meanwhile."""
    async with server() as (app, _, connect):
        client = await connect()
        client.write(GET % b"hold" + POST % (b"2", 4) + b"ab")
        await app.entered.wait()
        assert len(app.scopes) == 1
        app.let.set()
        assert (await client.answer())[2] == b"GET /hold "
        client.write(b"cd" + GET % b"3")
        assert [(await client.answer())[2] for _ in range(2)] == [b"POST /2 abcd", b"GET /3 "]


async def test_a_client_that_sent_ahead_is_still_heard_leaving() -> None:
    """Once the last request that was sent ahead is under way, the connection is read again."""
    async with server() as (app, _, connect):
        client = await connect()
        client.write(GET % b"1" + GET % b"gone")
        await client.answer()
        await app.entered.wait()
        client.writer.close()
        await app.gone.wait()


async def test_a_million_requests_at_once_are_cut_short() -> None:
    """What is sent ahead is bounded: those within are answered, then why it ends, and nothing behind it is acted on."""
    async with server() as (app, _, connect):
        client = await connect()
        client.write(GET % b"x" * 3000)
        told = await client.rest()
        assert told.endswith(b"unreadable")
        assert len(app.seen) <= 3000
        assert told.count(b"HTTP/1.1 200 ") == len(app.seen)
        assert told.count(b"HTTP/1.1 400 ") == 1


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
async def test_how_bytes_are_cut_changes_nothing(size: int) -> None:
    """Any segments, the same requests."""
    wire = POST % (b"a", 5) + b"hello" + CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n" + GET % b"end"
    async with server() as (app, _, connect):
        client = await connect()
        client.writer.transport.set_write_buffer_limits(0)
        for at in range(0, len(wire), size):
            client.write(wire[at : at + size])
            await client.writer.drain()
        answers = [(await client.answer())[2] for _ in range(3)]
        assert answers == [b"POST /a hello", b"POST /c hello", b"GET /end "]
        assert len(app.seen) == 3


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://b/x?y", b"/x?y"), (b"HTTP://b?y=/z", b"/?y=/z"), (b"https://b", b"/"), (b"/x%2Fy", b"/x%2Fy")],
)
async def test_a_target_with_a_host_is_a_path_on_that_host(target: bytes, path: bytes) -> None:
    """Absolute form is taken, and its host is what counts (RFC 9112 section 3.2.2)."""
    async with server() as (app, _, connect):
        client = await connect()
        client.write(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
        await client.answer()
        assert app.seen == [("GET", path, b"")]
        hosts = [value for name, value in app.scopes[0]["headers"] if name == b"host"]
        assert hosts == ([b"a"] if target.startswith(b"/") else [b"b"])


async def test_an_offer_of_another_protocol_is_not_taken_up() -> None:
    """A request that would rather be HTTP/2 or WebSocket is one like any other, with its body, and so is the next."""
    offer = b"POST /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"
    async with server() as (app, _, connect):
        client = await connect()
        client.write(offer + b"he")
        client.write(b"llo" + offer + b"again" + GET % b"n")
        assert [(await client.answer())[2] for _ in range(3)] == [b"POST /u hello", b"POST /u again", b"GET /n "]
        assert b"upgrade" not in dict(app.scopes[0]["headers"])


async def test_behind_connect_nothing_is_read() -> None:
    """Nobody opens a tunnel here: the answer is an ordinary one, and what follows is not taken for a request."""
    async with server() as (app, _, connect):
        client = await connect()
        client.write(b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n" + GET % b"x")
        status, headers, body = await client.answer()
        assert (status, headers[b"connection"], body) == (200, b"close", b"CONNECT b:443 ")
        assert await client.rest() == b""
        assert len(app.scopes) == 1


async def test_every_form_of_an_end_is_kept() -> None:
    """HEAD, 204 and 304 have no body and no length that is not theirs; HTTP/1.0 and ``close`` end with the answer."""
    async with server() as (_, _, connect):
        client = await connect()
        client.write(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer(head=True))[0] == 200
        for status in (204, 304):
            client.write(GET % b"status/%d" % status)
            got, headers, _ = await client.answer()
            assert (got, b"content-length" in headers, b"transfer-encoding" in headers) == (status, False, False)
        client.write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET % b"never")
        assert (await client.answer())[1][b"connection"] == b"close"
        assert await client.rest() == b""
        old = await connect()
        old.write(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        await asyncio.sleep(0)
        old.write(b"a")
        status, headers, body = await old.answer()
        assert (status, headers[b"connection"], body) == (200, b"close", b"GET /x a")
        assert await old.rest() == b""


async def test_a_stream_is_chunked_and_in_http_1_0_ends_with_the_connection() -> None:
    """Whoever does not know chunks gets none."""
    async with server() as (app, _, connect):
        app.let.set()
        client, old = await connect(), await connect()
        client.write(GET % b"stream")
        assert (await client.answer())[2] == b"onetwo"
        old.write(b"GET /stream HTTP/1.0\r\n\r\n")
        told = await old.rest()
        assert told.endswith(b"\r\n\r\nonetwo")
        assert b"chunked" not in told


async def test_100_continue_is_said_once_and_only_where_it_is_waited_for() -> None:
    """Once, when the body is wanted and nothing of it is there; never in the midst of a body, nor with an early answer."""
    head = b"POST /%b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n"
    async with server() as (app, _, connect):
        client = await connect()
        client.write(head % b"x")
        assert (await client.answer())[0] == 100
        for read, part in ((2, b"ab"), (4, b"cd")):  # each is taken by itself: the application asks in between
            client.write(part)
            await until(lambda read=read: app.read == read)  # type: ignore[misc]  # a default binds the name
        client.write(b"ef")
        assert (await client.answer())[::2] == (200, b"POST /x abcdef")
        client.write(head % b"early")
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (413, b"close")
        assert len(app.seen) == 1


# --- clients that leave, stall, or don't stop ---


@pytest.mark.parametrize("sent", [GET % b"gone", POST % (b"gone", 9) + b"half"], ids=["while it works", "in its body"])
@pytest.mark.parametrize("how", ["closes", "half", "resets"])
async def test_a_client_that_leaves_is_noticed_at_once(sent: bytes, how: str) -> None:
    """However it leaves, the application is told; who only closes its sending side has left, too."""
    async with server() as (app, made, connect):
        client = await connect()
        client.write(sent)
        await app.entered.wait()
        if how == "half":
            client.writer.write_eof()
        elif how == "closes":
            client.writer.close()
        else:
            client.writer.transport.abort()
        await app.gone.wait()
        await until(lambda: not made.connections)


async def test_who_is_refused_early_can_read_why() -> None:
    """While it still sends megabytes: the answer says that the connection ends, and nothing of the rest breaks it."""
    async with server() as (_, _, connect):
        client = await connect()
        client.write(POST % (b"early", 50_000_000) + b"x" * 4_000_000)
        status, headers, body = await client.answer()
        assert (status, headers[b"connection"], body) == (413, b"close", b"why")
        assert await client.rest() == b""


async def test_a_slow_reader_is_not_written_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is made at its reader's pace; who takes nothing for too long loses the connection."""
    async with server() as (app, made, connect):
        client = await connect()
        client.reader._limit = 1024  # type: ignore[attr-defined]  # the test looks inside
        client.write(GET % b"flood")
        await app.entered.wait()
        (connection,) = made.connections
        await until(lambda: connection._stalled)
        assert app.sent < 1000
        monkeypatch.setattr(module, "STALLED_S", -1.0)
        await until(lambda: not made.connections)


async def test_whoever_sends_no_head_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, blank lines, or a head that never ends: idle all the same. One that is at work is not."""
    async with server() as (app, made, connect):
        busy = await connect()
        busy.write(GET % b"hold")
        await app.entered.wait()
        slow = [await connect() for _ in range(3)]
        slow[1].write(b"\r\n\r\n")
        slow[2].write(b"GET / HTTP/1.1\r\nX: ")
        await until(lambda: len(made.connections) == 4)
        monkeypatch.setattr(module, "IDLE_S", -1.0)
        assert [await client.rest() for client in slow] == [b""] * 3
        assert len(made.connections) == 1
        app.let.set()
        assert (await busy.answer())[0] == 200


async def test_a_long_call_leaves_its_answer_time_to_arrive() -> None:
    """Idleness is counted from the answer's end: a call that took longer than that does not cost its answer."""
    async with server() as (app, made, connect):
        client = await connect()
        client.write(b"GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await app.entered.wait()
        (connection,) = made.connections
        connection._since -= 1000
        app.let.set()
        await until(lambda: connection.turn is None)
        assert not connection.overdue(made.loop.time())


async def test_bodies_are_read_at_the_applications_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has asked for is bounded, and all of it arrives once somebody does."""
    monkeypatch.setattr(module, "BUFFER_BYTES", 1000)
    size = 20_000_000
    async with server() as (app, made, connect):
        client = await connect()
        client.write(POST % (b"hold", size) + b"x" * size)
        await app.entered.wait()
        (connection,) = made.connections
        await until(lambda: connection._paused)
        assert connection.turn._size < 1_000_000  # type: ignore[union-attr]  # the test looks inside
        app.let.set()
        await client.reader.readexactly(17)
        await until(lambda: bool(app.seen))
        assert len(app.seen[0][2]) == size


# --- applications that fail ---


async def test_an_application_that_fails_never_leaves_an_answer_that_looks_whole() -> None:
    """Before it started: 500. Afterwards: the last chunk is missing. A header with a line break is never sent."""
    async with server() as (_, _, connect):
        for path in (b"raise", b"inject"):
            client = await connect()
            client.write(GET % path)
            status, headers, _ = await client.answer()
            assert (status, headers[b"connection"]) == (500, b"close")
            assert b"set-cookie" not in headers
            assert await client.rest() == b""
        client = await connect()
        client.write(GET % b"break")
        assert (await client.rest()).endswith(b"\r\n\r\n4\r\nhalf\r\n")


# --- many, and the end ---


async def test_idle_connections_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of new ones takes the place of as many idle ones, the longest idle first; who is at work stays."""
    monkeypatch.setattr(module, "CONNECTIONS", 4)
    async with server() as (app, made, connect):
        busy = await connect()
        busy.write(GET % b"hold")
        await app.entered.wait()
        idle = [await connect() for _ in range(3)]
        await until(lambda: len(made.connections) == 4)
        idle[0].write(GET % b"recent")
        await idle[0].answer()
        new = await asyncio.gather(*(connect() for _ in range(2)))
        assert [await client.rest() for client in idle[1:]] == [b""] * 2
        for client in (idle[0], *new):
            client.write(GET % b"hold")
        await until(lambda: len(app.scopes) == 5 and not made.idle)
        late = await connect()
        assert await late.rest() == b""
        assert len(made.connections) == 4
        app.let.set()
        assert {(await client.answer())[0] for client in (busy, idle[0], *new)} == {200}


async def test_stopping_lets_calls_finish_and_says_that_the_connection_ends() -> None:
    """Idle connections end at once, those at work with their answer, which says so; nobody new gets in."""
    async with server() as (app, made, connect):
        idle, busy, stream = await connect(), await connect(), await connect()
        stream.write(GET % b"stream")
        await app.entered.wait()
        app.entered.clear()
        busy.write(GET % b"hold")
        await app.entered.wait()
        stopping = asyncio.ensure_future(made.stop())
        assert await idle.rest() == b""
        with pytest.raises(OSError, match=r"."):
            await connect()
        app.let.set()
        assert (await busy.answer())[1][b"connection"] == b"close"
        assert (await stream.answer())[2] == b"onetwo"
        await stopping
        assert not made.connections


async def test_stopping_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that does not end is cut off after the grace; its application is told."""
    monkeypatch.setattr(module, "STOP_GRACE_S", 0.0)
    async with server() as (app, made, connect):
        client = await connect()
        client.write(GET % b"gone")
        await app.entered.wait()
        await made.stop()
        await app.gone.wait()
        assert await client.rest() == b""


async def test_an_address_is_taken_once_and_may_be_ipv6() -> None:
    """Whoever comes second is told; brackets are the address's own."""
    async with server() as (app, made, _):
        second = HttpServer(app, made.address)
        with pytest.raises(AddressInUse):
            await second.start()
    six = HttpServer(App(), f"[::1]:{made.address.rpartition(':')[2]}")
    try:
        await six.start()
    except AddressInUse:
        return  # a machine without IPv6
    reader, writer = await asyncio.open_connection("::1", int(made.address.rpartition(":")[2]))
    client = Client(reader, writer)
    client.write(GET % b"x")
    assert (await client.answer())[0] == 200
    writer.close()
    await six.stop()
