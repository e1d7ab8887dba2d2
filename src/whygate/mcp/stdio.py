"""MCP servers that speak over stdio, made to look like streamable HTTP.

Rules of this file:

1. Legacy: one process per session. ``initialize`` starts it, ``DELETE`` or idleness ends it; a session that is not, or
   is another principal's, answers 404 either way.
2. Modern: one process per principal, since a process may keep state. Its first message pins a process's era (measured:
   mcp 2.3.0 refuses the other era's messages from then on), so the eras never share one.
3. Processes are bounded: per principal and in all. What is idle gives way; what is not, does not. One that was told to
   leave counts until it is gone: it can take its time, and its owner could meanwhile start the next.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.mcp import frames, refusals, splices
from whygate.mcp.backend import Answered, Outgoing, Refused, Server
from whygate.mcp.envelope import HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, MODERN
from whygate.mcp.sessions import whose
from whygate.mcp.wire import Waiter, Wire
from whygate.transport.upstream import UpstreamError

KEEPALIVE_S: Final = 15.0
"""Below what proxies cut idle streams at (60 s and more), and what the Python SDK's server does."""
BACKOFF_S: Final = 0.5
BACKOFF_MOST_S: Final = 30.0
_STATUS: Final = {str(METHOD_NOT_FOUND): 404} | {
    str(code): 400 for code in (INVALID_PARAMS, HEADER_MISMATCH, -32021, -32022)
}
"""HTTP statuses that the modern era gives to errors (2026-07-28, basic/transports, "Error Responses")."""

_log = logging.getLogger("whygate.mcp.stdio")


class Whole:
    """An answer that is complete."""

    __slots__ = ("_body", "headers", "media_type", "status")

    def __init__(self, status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.status = status
        self.media_type = "application/json" if body else ""
        self.headers = [*headers, ("content-type", "application/json")] if body else list(headers)
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self, cap_bytes: int) -> bytes:
        if len(self._body) > cap_bytes:
            raise UpstreamError(Code.RESULT_TOO_LARGE, f"the answer is above {cap_bytes} bytes")
        return self._body


class Events:
    """An answer that arrives bit by bit."""

    __slots__ = ("_endless", "_first", "_timeout_s", "_waiter", "headers", "media_type", "status")

    def __init__(self, waiter: Waiter, first: bytes, timeout_s: float, *, endless: bool) -> None:
        self.status = 200
        self.media_type = "text/event-stream"
        self.headers = [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache, no-transform"),
            ("x-accel-buffering", "no"),
        ]
        self._waiter = waiter
        self._first = first
        self._timeout_s = timeout_s
        self._endless = endless
        """Silence is no sign of trouble (``GET``, ``subscriptions/listen``)."""

    async def chunks(self) -> AsyncIterator[bytes]:
        waiter = self._waiter
        if self._first:
            yield frames.event(self._first)
        silent_s = 0.0
        while not (waiter.answered and waiter.queue.empty()):
            try:
                message = await waiter.next(min(KEEPALIVE_S, self._timeout_s))
            except UpstreamError as error:
                silent_s += KEEPALIVE_S
                if error.code is not Code.UPSTREAM_TIMEOUT or (silent_s >= self._timeout_s and not self._endless):
                    raise
                yield b": still here\n\n"
                continue
            silent_s = 0.0
            yield frames.event(message)

    async def read(self, cap_bytes: int) -> bytes:
        parts = [chunk async for chunk in self.chunks()]
        return await Whole(200, b"".join(parts)).read(cap_bytes)


class _Seat:
    """A process with its owner."""

    __slots__ = ("handle", "key", "owner", "used", "wire")

    def __init__(self, key: str, owner: str, wire: Wire) -> None:
        self.key = key
        """The session's id, or, in the modern era, the owner."""
        self.owner = owner
        self.wire = wire
        self.used = 0.0
        self.handle: asyncio.TimerHandle | None = None


class StdioBackend:
    """All processes of one configured server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.limits
        self._timeout_s = server.read_timeout_s
        self._sessions: dict[str, _Seat] = {}
        self._shared: dict[str, _Seat] = {}
        self._lock = asyncio.Lock()
        self._failed = 0
        self._not_before = 0.0
        self._stops: dict[asyncio.Task[None], str] = {}
        """Processes on their way out, and whose they were."""
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        for seat in (*self._sessions.values(), *self._shared.values()):
            self._leave(seat)
        cancelled: asyncio.CancelledError | None = None
        while self._stops:
            try:
                await asyncio.wait(self._stops)
            except asyncio.CancelledError as error:  # no process is left behind; they end within a bounded time
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def dismiss(self, principal: Principal) -> None:
        seat = self._shared.get(whose(principal))
        if seat is not None and not seat.wire.busy:
            self._leave(seat)

    @asynccontextmanager
    async def send(self, out: Outgoing) -> AsyncIterator[Answered]:
        envelope = out.envelope
        modern = envelope.modern or dict(out.headers).get("mcp-protocol-version") in MODERN
        if modern:
            if out.http_method != "POST":
                yield Whole(405, headers=(("allow", "POST"),))
            elif envelope.id is None:
                yield await self._modern_notice(out)
            elif envelope.method == "initialize":
                # The process may know it from the other era; over HTTP it is gone from this one.
                yield Whole(404, refusals.protocol_error(envelope, METHOD_NOT_FOUND, "Method not found"))
            else:
                async with self._modern(out) as answer:
                    yield answer
        elif (
            envelope.method == "initialize" and envelope.id is not None
        ):  # without an id there is no answer to wait for
            seat = await self._open(out, modern=False)
            async with self._asked(seat, out, (("mcp-session-id", seat.key),)) as answer:
                yield answer
        else:
            async with self._legacy(out) as answer:
                yield answer

    @asynccontextmanager
    async def _modern(self, out: Outgoing) -> AsyncIterator[Answered]:
        seat = self._shared.get(whose(out.principal)) or await self._open(out, modern=True)
        calls = out.envelope.method == "tools/call"
        if calls and (wrong := seat.wire.mirrors.mismatch(out.envelope.params, out.headers)):
            yield Whole(400, refusals.protocol_error(out.envelope, HEADER_MISMATCH, wrong))
            return
        async with self._asked(seat, out) as answer:
            yield answer

    @asynccontextmanager
    async def _legacy(self, out: Outgoing) -> AsyncIterator[Answered]:
        if not out.session:
            yield Whole(400, refusals.protocol_error(out.envelope, INVALID_REQUEST, "Missing session ID"))
            return
        seat = self._sessions.get(out.session)
        if seat is None or seat.owner != whose(out.principal):
            yield Whole(404, refusals.dead_session(out.envelope))
        elif out.http_method == "DELETE":
            self._leave(seat)
            yield Whole(204)
        elif out.http_method == "GET":
            async with self._listening(seat, out) as answer:
                yield answer
        elif out.envelope.id is None:
            await seat.wire.tell(out.body)
            self._used(seat)
            yield Whole(202)
        else:
            async with self._asked(seat, out) as answer:
                yield answer

    async def _modern_notice(self, out: Outgoing) -> Whole:
        """Notifications are accepted, as servers over HTTP do; only a cancellation means something to the process."""
        if not out.envelope.method:
            return Whole(400, refusals.protocol_error(out.envelope, INVALID_REQUEST, "Not a request"))
        seat = self._shared.get(whose(out.principal))
        if seat is not None and out.envelope.method == "notifications/cancelled":
            message = seat.wire.cancelled(out.envelope)
            if message is not None:
                await seat.wire.tell(message)
        return Whole(202)

    @asynccontextmanager
    async def _listening(self, seat: _Seat, out: Outgoing) -> AsyncIterator[Answered]:
        waiter = seat.wire.listen()
        if waiter is None:
            yield Whole(409, refusals.protocol_error(out.envelope, INVALID_REQUEST, "Only one stream per session"))
            return
        try:
            yield Events(waiter, b"", self._timeout_s, endless=True)
        finally:
            seat.wire.unlisten()
            self._used(seat)

    @asynccontextmanager
    async def _asked(
        self, seat: _Seat, out: Outgoing, headers: tuple[tuple[str, str], ...] = ()
    ) -> AsyncIterator[Answered]:
        """Write the request and wait for the first sign. Raises ``UpstreamError``."""
        wire, envelope = seat.wire, out.envelope
        waiter = await wire.ask(out)
        if waiter is None:
            yield Whole(400, refusals.protocol_error(envelope, INVALID_REQUEST, "This id is in flight already"))
            return
        endless = envelope.method == "subscriptions/listen"
        try:
            message = await waiter.next(self._timeout_s)
            while not out.takes_events and not (waiter.answered and waiter.queue.empty()):
                message = await waiter.next(self._timeout_s)
            if waiter.answered and waiter.queue.empty():
                yield Whole(status_of_error(message) if envelope.modern else 200, message, headers)
            else:
                answer = Events(waiter, message, self._timeout_s, endless=endless)
                answer.headers += headers
                yield answer
        finally:
            await wire.forget(waiter)
            self._used(seat)

    async def _open(self, out: Outgoing, *, modern: bool) -> _Seat:
        """A new process. Raises ``Refused`` over the bounds, ``UpstreamError`` where it can't be started."""
        owner = whose(out.principal)
        async with self._lock:
            if modern and (there := self._shared.get(owner)) is not None:
                return there
            now = asyncio.get_running_loop().time()
            if self._closed or now < self._not_before:
                raise UpstreamError(Code.UPSTREAM_FAILED, "the tool's process keeps ending", sent=False)
            self._make_room(owner)
            wire = Wire(self._server, modern=modern, on_end=self._on_end)
            seat = _Seat(owner if modern else secrets.token_urlsafe(24), owner, wire)
            try:
                await wire.start()
            except UpstreamError:
                self._back_off()
                raise
            (self._shared if modern else self._sessions)[seat.key] = seat
            self._used(seat)
            return seat

    def _make_room(self, owner: str) -> None:
        seats = [*self._sessions.values(), *self._shared.values()]
        mine = [seat for seat in seats if seat.owner == owner]
        leaving = list(self._stops.values())
        if leaving.count(owner) >= self._limits.per_principal or len(leaving) >= self._limits.processes:
            raise Refused(Code.QUOTA_EXCEEDED, f"{len(leaving)} processes of {self._server.name} are still ending")
        # One's own idle sessions go first: nobody can push others' out by opening many.
        for group, most in ((mine, self._limits.per_principal), (seats, self._limits.processes)):
            if len(group) < most:
                continue
            idle = [seat for seat in group if not seat.wire.busy]
            if not idle:
                raise Refused(Code.QUOTA_EXCEEDED, f"{len(group)} processes of {self._server.name} are in use")
            self._leave(min(idle, key=lambda seat: seat.used))

    def _used(self, seat: _Seat) -> None:
        """Begin to count idleness anew."""
        loop = asyncio.get_running_loop()
        seat.used = loop.time()
        if seat.handle is None and not self._closed:
            seat.handle = loop.call_later(self._limits.idle_s, self._idle, seat)

    def _idle(self, seat: _Seat) -> None:
        loop = asyncio.get_running_loop()
        seat.handle = None
        left_s = seat.used + self._limits.idle_s - loop.time()
        if seat.wire.busy or left_s > 0:
            seat.handle = loop.call_later(max(left_s, self._limits.idle_s / 10), self._idle, seat)
        else:
            self._leave(seat)

    def _leave(self, seat: _Seat) -> None:
        """Take it out of use now; its process ends in its own time."""
        self._drop(seat)
        task = asyncio.get_running_loop().create_task(seat.wire.stop())
        self._stops[task] = seat.owner
        task.add_done_callback(lambda _: self._stops.pop(task, None))

    def _drop(self, seat: _Seat) -> None:
        for table in (self._sessions, self._shared):
            if table.get(seat.key) is seat:
                del table[seat.key]
        if seat.handle is not None:
            seat.handle.cancel()
            seat.handle = None

    def _on_end(self, wire: Wire) -> None:
        if wire.stopping:
            return
        _log.warning("%s: its process ended by itself", self._server.name)
        if wire.spoke:
            self._failed = 0
        else:
            self._back_off()
        for seat in (*self._sessions.values(), *self._shared.values()):
            if seat.wire is wire:
                self._leave(seat)

    def _back_off(self) -> None:
        """It ended without a word: the next start waits, twice as long each time."""
        wait_s = min(BACKOFF_S * 2**self._failed, BACKOFF_MOST_S)
        self._failed = min(self._failed + 1, 16)
        self._not_before = asyncio.get_running_loop().time() + wait_s


def status_of_error(message: bytes) -> int:
    """The HTTP status that a response has in the modern era; 200 where it is no error that has one of its own."""
    opened = splices.opened(message)
    return _STATUS.get(splices.error_code(opened.error), 200) if opened is not None and opened.error else 200
