"""Whatever comes, and however the network cuts it: the same requests, the same answers, and nothing unforeseen."""

import asyncio
import re
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.edges.http1 import App

from whygate.transport.link import Link, UpstreamError
from whygate.transport.server import Connection, HttpServer

T = TypeVar("T")

REQUESTS = [
    b"GET /a?b=%2f HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
    b"POST /u HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
    b"GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT b:1 HTTP/1.1\r\n\r\n",
    b"GET /d HTTP/1.0\r\n\r\n",
    b"GET /e HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"\r\n",
]
ANSWERS = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
]
PIECES = [
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b":",
    b"0",
    b"5\r\n",
    b"\xff",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: x\r\n",
    b"",
]


@st.composite
def wires(draw: st.DrawFn, whole: list[bytes]) -> tuple[bytes, list[int]]:
    """Messages, sometimes with a piece of them replaced, and where they are cut."""
    wire = b"".join(draw(st.lists(st.sampled_from(whole), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(wire)))
        wire = wire[:at] + draw(st.sampled_from(PIECES)) + wire[at + draw(st.integers(0, 4)) :]
    cuts = draw(st.lists(st.integers(0, len(wire)), max_size=8)) if draw(st.booleans()) else list(range(len(wire)))
    return wire, sorted(cuts)


class Socket(asyncio.Transport):
    """What is written to it, and whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closing
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


async def _served(parts: list[bytes]) -> tuple[list[Any], bytes]:
    app = App()
    app.do_hold = app.do_gone = app.do_early = app.do_stream = app.do_echo  # type: ignore[method-assign]  # no matter
    server = HttpServer(app, "127.0.0.1:1")
    server.loop, server.date = asyncio.get_running_loop(), b""
    connection, sock = Connection(server), Socket()
    connection.connection_made(sock)
    for part in parts:
        for _ in range(200 if sock.paused else 0):
            await asyncio.sleep(0)
        if part and not sock.closing:
            connection.data_received(part)
    for _ in range(40):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    sock.closing = True
    for _ in range(4):
        await asyncio.sleep(0)
    assert connection.turn is None
    assert not server.connections
    # Of two wrongs in one head, either may be noticed first; both are refused with the same reason.
    return app.seen, re.sub(
        rb"(?:501 Not Implemented|505 HTTP Version Not Supported)", b"400 Bad Request", sock.written
    )


async def _answered(parts: list[bytes]) -> tuple[int, Any, bytes, str]:
    link = Link(asyncio.get_running_loop(), None, lambda _: None)
    link.connection_made(sock := Socket())
    link.ask(b"GET / HTTP/1.1\r\n\r\n", headless=False)
    for part in parts:
        if part and not sock.closing and not link._failed:
            link.data_received(part)
    link.connection_lost(None)
    headers, body = [], b""
    try:
        headers = await link.head()
        while chunk := await link.take():
            body += chunk
    except UpstreamError as error:
        return link.status, headers, body, error.code.value
    return link.status, headers, body, ""


def _cut(wire: bytes, cuts: list[int]) -> list[bytes]:
    return [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


def _run(loop: asyncio.AbstractEventLoop, made: Coroutine[Any, Any, T]) -> T:
    wrong: list[Any] = []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    found = loop.run_until_complete(made)
    assert wrong == []
    return found


@settings(max_examples=300, deadline=None)
@given(wires(REQUESTS))
@example((REQUESTS[4] + REQUESTS[3].replace(b": chunked", b": hunked"), list(range(200))))
@example((REQUESTS[1] + REQUESTS[1].replace(b"/a", b"/\0a"), list(range(60))))
def test_requests_do_not_depend_on_segments(loop: asyncio.AbstractEventLoop, case: tuple[bytes, list[int]]) -> None:
    """The same are served with the same bodies and answered alike, good or bad; at most one is unreadable, the last."""
    wire, cuts = case
    seen, written = _run(loop, _served([wire]))
    assert (seen, written) == _run(loop, _served(_cut(wire, cuts)))
    assert written.count(b"unreadable") <= 1
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", written)
    assert len(statuses) - len(seen) in (0, 1)
    assert b"500" not in statuses


@settings(max_examples=300, deadline=None)
@given(wires(ANSWERS))
def test_answers_do_not_depend_on_segments(loop: asyncio.AbstractEventLoop, case: tuple[bytes, list[int]]) -> None:
    """The same status, headers and body, or the same failure after the same bytes."""
    wire, cuts = case
    assert _run(loop, _answered([wire])) == _run(loop, _answered(_cut(wire, cuts)))
