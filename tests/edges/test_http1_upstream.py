"""Calls to tools over raw sockets: what is taken for an answer, what is not, and which connection is used again."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.edges.http1 import until

from whygate.core.reasons import Code
from whygate.transport import upstream as module
from whygate.transport.link import BUFFER_BYTES
from whygate.transport.upstream import UpstreamError, UpstreamResponse, Upstreams

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"HTTP/1.1 200 OK\r\n"
CAP = 4 * 1024 * 1024
Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Tool:
    """Reads requests and answers each with the next of ``answers``; ``b""`` is to close. ``act`` does it another way."""

    def __init__(self, *answers: bytes, act: Act | None = None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.open: list[asyncio.StreamWriter] = []
        self.closed = asyncio.Event()
        self.act = act or self._answer
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self.act(reader, writer)
        writer.close()
        self.closed.set()

    async def request(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0] or b"0")
        self.requests.append(head + await reader.readexactly(length))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self.request(reader)
            if not (answer := self.answers.pop(0)):
                return
            writer.write(answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x"


@asynccontextmanager
async def called(tool: Tool, *, tls: ssl.SSLContext | None = None, **more: float) -> AsyncIterator[Upstreams]:
    """A pool, while the tool listens."""
    listening = await asyncio.start_server(tool, "127.0.0.1", 0, ssl=tls)
    tool.port = listening.sockets[0].getsockname()[1]
    pool = Upstreams(**more)
    try:
        yield pool
    finally:
        await pool.close()
        listening.close()
        for writer in tool.open:
            writer.transport.abort()


async def get(pool: Upstreams, url: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
    async with pool.send(method, url, [("x", "y")], body) as answer:
        return answer.status, await answer.read(CAP)


async def failure(pool: Upstreams, url: str, method: str = "GET", body: bytes = b"") -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await get(pool, url, method, body)
    return caught.value


@pytest.mark.parametrize("cut", [1, 3, 1000])
@pytest.mark.parametrize(
    ("answer", "method", "told", "kept"),
    [
        (OK, "GET", (200, b"ok"), True),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\no\r\n1\r\nk\r\n0\r\nX: y\r\n\r\n",
            "GET",
            (200, b"ok"),
            True,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: a\r\n\r\n" + OK, "POST", (200, b"ok"), True),
        (b"HTTP/1.1 204 No\r\n\r\n", "DELETE", (204, b""), True),
        (b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n", "GET", (304, b""), False),
        (HEAD + b"Content-Length: 9\r\n\r\n", "HEAD", (200, b""), False),
        (HEAD + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok", "GET", (200, b"ok"), True),
        (HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", "GET", (200, b"ok"), False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", (200, b"ok"), False),
        (OK + OK, "GET", (200, b"ok"), False),
        (OK + b"\0", "GET", (200, b"ok"), False),
    ],
    ids=["length", "chunks", "1xx", "204", "304", "HEAD", "offers", "close", "1.0", "two answers", "garbage behind"],
)
async def test_answers_are_what_their_framing_says(
    answer: bytes, method: str, told: tuple[int, bytes], *, kept: bool, cut: int
) -> None:
    """However their bytes are cut; a connection that said more than was asked, or may have, is not used again."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await tool.request(reader)
            for at in range(0, len(answer), cut):
                writer.write(answer[at : at + cut])
                await asyncio.sleep(0)

    tool = Tool(act=act)
    async with called(tool) as pool:
        assert await get(pool, tool.url, method) == told
        if not kept:
            await until(lambda: not pool._links)
        assert await get(pool, tool.url, method) == told
        assert tool.connections == (1 if kept else 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        HEAD + b"Content-Length: 3\r\n\r\nok",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nok",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"SSH-2.0-x\r\n",
        HEAD + b"X: a\r\n b\r\n\r\n",
        HEAD + b"X: a\0\r\n\r\n",
        HEAD + b"X: " + b"a" * 300_000,
        b"HTTP/1.1 103 E\r\n\r\n" * 20_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: " + b"a" * 900_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"a" * 900_000,
    ],
)
async def test_what_breaks_off_or_can_not_be_read_is_a_failure(answer: bytes) -> None:
    """Never half an answer, never for ever, never sent twice."""
    tool = Tool(answer, b"")

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await tool.request(reader)
        writer.write(answer)
        await writer.drain()

    tool.act = act
    async with called(tool) as pool:
        error = await failure(pool, tool.url, "POST", b"body")
        assert (error.code, error.sent) == (Code.UPSTREAM_FAILED, True)
        assert len(tool.requests) == 1


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    """And only then."""
    tool = Tool(HEAD + b"\r\nok", b"")

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await tool.request(reader)
        writer.write(HEAD + b"\r\nok")

    tool.act = act
    async with called(tool) as pool:
        assert await get(pool, tool.url) == (200, b"ok")


async def test_a_connection_closed_between_two_calls_costs_nothing() -> None:
    """It is heard closing; the next call has a new one. Bytes that nobody asked for spoil one, too."""
    tool = Tool(OK, OK, OK)
    async with called(tool) as pool:
        await get(pool, tool.url)
        (link,) = pool._links
        tool.open[0].close()
        await until(lambda: not link.usable)
        await get(pool, tool.url)
        (link,) = pool._links
        tool.open[1].write(OK)
        await until(lambda: not link.usable)
        assert await get(pool, tool.url) == (200, b"ok")
        assert (tool.connections, len(tool.requests)) == (3, 3)


async def test_a_request_that_met_a_closing_connection_is_not_repeated() -> None:
    """Nobody knows whether it was acted on, so nobody sends it again."""
    tool = Tool(OK, b"")
    async with called(tool) as pool:
        await get(pool, tool.url)
        error = await failure(pool, tool.url, "POST", b"once")
        assert (error.code, len(tool.requests), tool.connections) == (Code.UPSTREAM_FAILED, 2, 1)


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-x\r\n"], ids=["closes", "speaks first"])
async def test_a_tool_that_hangs_up_at_once_is_a_failure_at_once(greeting: bytes) -> None:
    """Not after two minutes, and nothing of it is kept."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)

    tool = Tool(act=act)
    async with called(tool) as pool:
        for _ in range(3):
            assert (await failure(pool, tool.url)).code is Code.UPSTREAM_FAILED
        await until(lambda: not pool._links)


async def test_a_new_connection_that_is_lost_before_it_is_asked_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between connecting and asking, too."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    tool = Tool(act=act)
    async with called(tool) as pool:
        loop = asyncio.get_running_loop()
        connect = loop.create_connection

        async def slow(*args: object, **more: object) -> object:
            made = await connect(*args, **more)  # type: ignore[arg-type, call-overload]  # passed on as they came
            made[0].abort()
            await until(lambda: not made[1].usable)
            return made

        monkeypatch.setattr(module.asyncio, "get_running_loop", lambda: _Loop(loop, slow))
        error = await failure(pool, tool.url)
        monkeypatch.undo()
        assert (error.code, error.sent, pool._links) == (Code.UPSTREAM_FAILED, False, set())


class _Loop:
    def __init__(self, loop: asyncio.AbstractEventLoop, connect: object) -> None:
        self._loop, self.create_connection = loop, connect

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


async def test_an_answer_before_the_request_was_sent_is_the_answer() -> None:
    """A tool may say no while a large body is still on its way; that connection carries nothing else."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno")
        await tool.closed.wait()

    tool = Tool(act=act)
    async with called(tool) as pool:
        assert await get(pool, tool.url, "POST", b"x" * 16_000_000) == (413, b"no")
        assert not pool._idle
        tool.closed.set()


async def test_a_large_request_arrives_whole() -> None:
    """Four MiB, byte for byte, with bytes outside ASCII in a header as they came."""
    tool, body = Tool(OK), bytes(range(256)) * 16384
    async with called(tool) as pool:
        async with pool.send("PUT", tool.url, [("x", "\xe9")], body) as answer:
            assert await answer.read(CAP) == b"ok"
        assert tool.requests[0].endswith(body)
        assert b"\r\nx: \xe9\r\n" in tool.requests[0]
        for wrong in ("a\r\nb: c", "a\nb", "\u20ac"):
            with pytest.raises(ValueError, match=r"."):
                pool.send("GET", tool.url, [("x", wrong)], b"")


async def test_what_is_too_large_is_not_read() -> None:
    """Told by its length, or noticed underway."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for start in (b"Content-Length: 4194305\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 65):
        tool = Tool(HEAD + start)
        async with called(tool) as pool:
            assert (await failure(pool, tool.url)).code is Code.RESULT_TOO_LARGE
            await tool.closed.wait()


async def test_a_slow_agent_slows_the_tool_and_is_not_held_against_it() -> None:
    """What nobody takes is not read on, and no time runs meanwhile; taken at last, it is all there."""
    size = 40_000_000

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await tool.request(reader)
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
        await writer.drain()
        await reader.read()

    tool = Tool(act=act)
    async with called(tool, read_timeout_s=0.05) as pool, pool.send("GET", tool.url, [], b"") as answer:
        (link,) = pool._links
        await until(lambda: link._size > BUFFER_BYTES)
        await asyncio.sleep(0.15)  # longer than a tool may be silent
        assert link._size < 1_500_000
        assert sum([len(chunk) async for chunk in answer.chunks()]) == size


async def test_an_answer_not_taken_to_its_end_does_not_block_the_next_call() -> None:
    """A connection that is no longer read is not used again."""
    size = BUFFER_BYTES + 1000
    tool = Tool(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size, OK)
    async with called(tool) as pool:
        async with pool.send("GET", tool.url, [], b""):
            (link,) = pool._links
            await until(lambda: link.whole or link._size > BUFFER_BYTES)
        tool.answers = [OK]
        assert await get(pool, tool.url) == (200, b"ok")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 1", HEAD + b"Content-Length: 3\r\n\r\no"])
async def test_silence_is_timed(start: bytes) -> None:
    """Before the head, within it, within the body; and the tool sees the connection close."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await tool.request(reader)
        writer.write(start)
        await reader.read()

    tool = Tool(act=act)
    async with called(tool, read_timeout_s=0.05) as pool:
        assert (await failure(pool, tool.url)).code is Code.UPSTREAM_TIMEOUT
        await tool.closed.wait()


@pytest.mark.parametrize("start", [b"", HEAD + b"Content-Length: 3\r\n\r\no"], ids=["before the head", "in the body"])
async def test_a_call_that_is_cancelled_ends_the_tools_connection(start: bytes) -> None:
    """A tool that works for nobody is told so."""
    asked = asyncio.Event()

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await tool.request(reader)
        writer.write(start)
        asked.set()
        await reader.read()

    tool = Tool(act=act)
    async with called(tool) as pool:
        call = asyncio.ensure_future(get(pool, tool.url))
        await asked.wait()
        (link,) = pool._links
        await until(lambda: bool(link.status) or not start)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await tool.closed.wait()
        await until(lambda: not pool._links)


async def test_closing_the_pool_breaks_off_what_is_read() -> None:
    """Whoever reads is told; nobody waits on."""
    tool = Tool(HEAD + b"Content-Length: 3\r\n\r\no")
    async with called(tool) as pool, pool.send("GET", tool.url, [], b"") as answer:
        reading = asyncio.ensure_future(answer.read(CAP))
        await until(lambda: bool([link for link in pool._links if link.waits_since()]))
        await pool.close()
        with pytest.raises(UpstreamError):
            await reading
    assert isinstance(answer, UpstreamResponse)


async def test_idle_connections_are_kept_by_origin_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one used is used next, none for another origin, no more than the bound, and none beyond its time."""
    first, second = Tool(*[OK] * 20), Tool(*[OK] * 20)
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    async with called(first, read_timeout_s=0.2) as pool, called(second):
        await asyncio.gather(*(get(pool, first.url) for _ in range(4)))
        await get(pool, second.url)
        assert [len(idle) for idle in pool._idle.values()] == [2, 1]
        await get(pool, first.url)
        await get(pool, first.url)
        assert (first.connections, second.connections) == (4, 1)
        monkeypatch.setattr(module, "IDLE_S", -1.0)
        await until(lambda: not pool._idle and not pool._links)
        assert await get(pool, first.url) == (200, b"ok")
