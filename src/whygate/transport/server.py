"""The agents' HTTP/1.1 server: an ASGI 3 application on the event loop's own sockets.

Rules of this file:

1. Framing is read by llhttp (httptools), strictly: what two readers could cut differently (two lengths, a length beside
   chunks, other transfer codings, bare line feeds) is answered 400, and the connection ends (RFC 9112 sections 6 and 11.2).
2. Everything that a client can hold is bounded: heads in bytes, headers and time, bodies by the reader's pace, answers by
   the client's, connections in number. An idle connection makes room for a new one.
3. One request at a time on a connection: what is sent ahead waits, and nothing more is read meanwhile.

Why not one of the well-kept servers: they hand each call from thread to thread or wrap it several times over, and half of
a call's time went there (docs/decisions/0008-http-on-the-event-loop.md).
"""

import asyncio
import logging
import time
from collections import deque
from email.utils import formatdate
from typing import Any, Final

import httptools

from whygate.transport import framing
from whygate.transport.asgi import ARRIVED, LEFT, Header
from whygate.transport.framing import MAX_HEAD_BYTES, MAX_HEADERS, UNFINISHED_BYTES, Unreadable, scope_of
from whygate.transport.turn import Turn

MAX_AHEAD: Final = 64
"""Requests sent ahead on one connection."""
BUFFER_BYTES: Final = 256 * 1024
"""Of a body, read ahead of the application."""
IDLE_S: Final = 30.0
"""For the next request's whole head: long enough for an agent that thinks between two calls, and shorter than what proxies
in between allow."""
STALLED_S: Final = 60.0
"""A client that takes nothing of its answer for so long has gone."""
LINGER_S: Final = 2.0
"""For a client that is still sending to read why it was refused; a connection closed at once would take that away."""
CONNECTIONS: Final = 8192
"""Served at once. Beyond, the longest idle one makes room; where none is idle, the new one is closed."""
BACKLOG: Final = 2048
"""Connections that the kernel holds while the loop is busy: a burst of clients is not a reason to refuse."""
STOP_GRACE_S: Final = 2.0
"""For answers to reach their clients; that calls can finish is seen to before (``under_way``)."""

_log = logging.getLogger("whygate.http")


class AddressInUse(Exception):
    """Somebody else listens there."""


class HttpServer:
    """One application on one address. Use ``start`` and ``stop`` once each."""

    def __init__(self, app: Any, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.app = app
        self.address = address
        self._host, self._port = host.strip("[]"), int(port)
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle
        self.connections: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        """Those that carry no request, the longest idle first."""
        self.stopping = False
        self._empty: asyncio.Future[None] | None = None
        self.loop: asyncio.AbstractEventLoop
        self.date = b""

    async def start(self) -> None:
        """Return when connections are accepted. Raises ``AddressInUse``."""
        self.loop = asyncio.get_running_loop()
        self._sweep()
        try:
            self._server = await self.loop.create_server(
                lambda: Connection(self), self._host, self._port, backlog=BACKLOG
            )
        except OSError as error:
            self._sweeping.cancel()
            raise AddressInUse(f"{self.address}: {error.strerror or error}") from None

    def refuse(self) -> None:
        """From now on take no connections, and no further requests on those there are; what is under way goes on."""
        if self._server is not None and not self.stopping:
            self.stopping = True
            self._server.close()
            for connection in list(self.connections):
                connection.finish()

    async def stop(self) -> None:
        """Refuse new connections, let calls in flight finish for ``STOP_GRACE_S``, then end."""
        self.refuse()
        if self.connections:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=STOP_GRACE_S)
        for connection in list(self.connections):
            connection.abort()
        self._sweeping.cancel()

    def joined(self, connection: "Connection") -> None:
        if len(self.connections) >= CONNECTIONS:
            # Taken off the list at once: a burst of new ones must not all lean on the same idle one.
            idle = next(iter(self.idle), connection)
            self.left(idle)
            idle.abort()
            if idle is connection:
                return
        self.connections[connection] = self.idle[connection] = None

    def rested(self, connection: "Connection") -> None:
        if connection in self.connections:
            self.idle[connection] = None

    def left(self, connection: "Connection") -> None:
        self.connections.pop(connection, None)
        self.idle.pop(connection, None)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _sweep(self) -> None:
        """Once a second: the date of answers, and clients that have had time enough."""
        self.date = b"date: " + formatdate(time.time(), usegmt=True).encode() + b"\r\n"
        now = self.loop.time()
        for connection in [each for each in self.connections if each.overdue(now)]:
            connection.abort()
        self._sweeping = self.loop.call_later(1.0, self._sweep)


class Connection(asyncio.Protocol):
    """One client's connection, and the requests on it."""

    __slots__ = (
        *("_ahead", "_client", "_head_bytes", "_headers", "_in_head", "_lingering", "_parser", "_paused", "_reading"),
        "_segment",
        *("_server", "_since", "_stalled", "_task", "_url", "_writable", "transport", "turn"),
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._headers: list[Header] = []
        self._url = b""
        self._head_bytes = self._segment = 0
        """Come since the head began, or since something of the body did: what frames a body has an end, too. And last."""
        self._in_head = True
        self._since = 0.0
        """When it became idle or a head began; when the client stalled."""
        self._stalled = self._lingering = self._paused = False
        self._writable: asyncio.Future[None] | None = None
        self._ahead: deque[Turn] = deque()
        self._reading: Turn | None = None
        """Whose body is being read."""
        self._task: asyncio.Task[None] | None = None
        self.turn: Turn | None = None
        """The request that is being answered."""
        self.transport: asyncio.Transport

    # --- the socket ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # what create_server makes
        peer = transport.get_extra_info("peername")
        self._client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else None
        self._since = self._server.loop.time()
        self._server.joined(self)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        rest, self._segment = None, len(data)
        self._head_bytes += self._segment
        try:
            self._parser.feed_data(data)
            if self._head_bytes > UNFINISHED_BYTES and (self._in_head or self._reading is not None):
                raise Unreadable(431)  # noqa: TRY301  one place answers whatever can't be read
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.status if isinstance(cause, Unreadable) else 400)
        except Unreadable as error:
            self._refuse(error.status)
        if rest is not None:
            self._stay(rest)  # not above: what is raised while another exception is handled, has that for its context

    def _stay(self, rest: bytes) -> None:
        """Nobody here speaks another protocol. Behind a ``CONNECT``, and where one is asked for in earnest, there is nothing but
        another; behind any other request that offers one stands its body, which llhttp would leave unread.
        """
        if (method := self._parser.get_method()) == b"CONNECT" or not framing.overlooked(self._headers):
            self._lingering = True
            (self._ahead[-1] if self._ahead else self.turn).ends = True  # type: ignore[union-attr]  # it has just begun
            return
        head = framing.without_upgrade((method, self._url, self._parser.get_http_version()), self._headers)
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self.data_received(head + rest)

    def eof_received(self) -> bool:
        """Who sends nothing more is taken for gone: there is no other sign by which a client's leaving is noticed."""
        self._left()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the protocol's own signature
        self._server.left(self)
        self._left()
        self.resume_writing()

    def _left(self) -> None:
        for turn in (self.turn, self._reading):
            if turn is not None:
                turn.disconnect()
        self._ahead.clear()

    def pause_writing(self) -> None:
        self._stalled = True
        self._since = self._server.loop.time()
        self._writable = self._server.loop.create_future()

    def resume_writing(self) -> None:
        self._stalled = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- the parser ---

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, self._segment
        self._headers, self._url = [], b""
        self._since = self._server.loop.time()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: nobody decides on it, and nobody passes it on (RFC 9110 section 6.5.1)
        headers, name = self._headers, name.lower()
        headers.append((name, value.strip(b" \t")))  # llhttp leaves what stands behind (RFC 9110 section 5.5)
        if len(headers) > MAX_HEADERS:
            raise Unreadable(431)
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise Unreadable(501)

    def on_headers_complete(self) -> None:
        parser, url = self._parser, self._url
        if parser.should_upgrade() and parser.get_method() != b"CONNECT" and framing.overlooked(self._headers):
            return  # it comes again without
        version = parser.get_http_version()
        if version != "1.1" or url[:1] != b"/" or b"#" in url or self._head_bytes > MAX_HEAD_BYTES:
            url = framing.settled(url, self._headers, version)
        self._in_head = False
        scope = scope_of(parser.get_method(), url, version, self._headers, self._client)
        # HTTP/1.0 would have to be told that its connection stays, and hardly anybody speaks it any more.
        turn = Turn(self, scope, ends=version == "1.0" or not parser.should_keep_alive())
        scope[ARRIVED], scope[LEFT] = turn.arrived, turn.on_left
        self._reading = turn
        if self.turn is None:
            self._begin(turn)
        elif len(self._ahead) >= MAX_AHEAD:
            raise Unreadable(400)
        else:
            self._ahead.append(turn)
            self._pause()

    def on_body(self, body: bytes) -> None:
        turn = self._reading
        self._head_bytes = 0
        if turn is not None and turn.take(body) > BUFFER_BYTES:
            self._pause()

    def on_message_complete(self) -> None:
        turn, self._reading = self._reading, None
        if turn is not None:
            turn.whole()

    # --- requests, one after the other ---

    def _begin(self, turn: Turn) -> None:
        self.turn = turn
        self._server.idle.pop(self, None)
        self._task = self._server.loop.create_task(self._serve(turn))

    async def _serve(self, turn: Turn) -> None:
        try:
            await self._server.app(turn.scope, turn.receive, turn.send)
        except Exception:  # noqa: BLE001  # the application has its own last line of defence; this is the server's
            _log.exception("a request failed in an unforeseen way")
        finally:
            self._ended(turn)

    def _ended(self, turn: Turn) -> None:
        self.turn = self._task = None
        turn.let_go()
        self._since = self._server.loop.time()
        if turn.answered and not (turn.ends or self._server.stopping or turn is self._reading):
            if self._ahead:
                self._next()
            else:
                self._server.rested(self)
                self._resume()
        elif self._ahead and turn.left and not turn.begun:
            self._next()  # its body could not be read on: what comes next says so in its place
        else:
            if not turn.begun and not turn.left:
                self.write(turn.head(500, [], b"content-length: 0\r\nconnection: close\r\n"))
            self._server.rested(self)
            # Where the answer is not whole, its length is not reached or the last chunk is missing: it shows.
            if self._reading is not None or self._ahead or self._lingering:
                self._linger()  # it may be sending still
            else:
                self.transport.close()

    def _next(self) -> None:
        self._begin(self._ahead.popleft())
        if not self._ahead:
            self._resume()

    def _refuse(self, status: int) -> None:
        """What can't be read is for the application to refuse, when its turn comes; then the connection ends."""
        reading, self._reading, self._lingering = self._reading, None, True
        last = self._ahead[-1] if self._ahead else self.turn
        if reading is None:
            if last is not None and last.ends:
                return  # behind the last request nothing is expected, and nobody waits for an answer to it
        elif reading is self.turn:
            reading.ends = True
            reading.disconnect()  # its body will never be whole
        else:
            self._ahead.pop()
        # Neither method nor headers are believed: the parser still knows those of the request before.
        scope = scope_of(b"GET", b"/", "1.1", [], self._client) | {framing.UNREADABLE: status}
        refusal = Turn(self, scope, ends=True)
        refusal.whole()
        if self.turn is None:
            self._begin(refusal)
        else:
            self._ahead.append(refusal)

    def _linger(self) -> None:
        self._lingering = True
        self._ahead.clear()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self._server.loop.call_later(LINGER_S, self.transport.close)
        self._resume()

    def _pause(self) -> None:
        self._paused = True
        self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    # --- for turns and the server ---

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    async def drained(self) -> None:
        while self._writable is not None:
            await self._writable

    def date(self) -> bytes:
        return self._server.date

    def future(self) -> "asyncio.Future[None]":
        return self._server.loop.create_future()

    def go_on(self) -> None:
        """The application has taken what was read ahead."""
        if not self._ahead and not self._lingering:
            self._resume()

    def overdue(self, now: float) -> bool:
        if self._stalled:
            return now - self._since > STALLED_S
        return self.turn is None and now - self._since > IDLE_S

    def finish(self) -> None:
        """Close as soon as the request in flight is answered; its client is told not to send another."""
        if self.turn is None:
            self.transport.close()
        else:
            self.turn.ends = True

    def abort(self) -> None:
        self._lingering = True
        self.transport.abort()
