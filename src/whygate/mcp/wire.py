"""Who gets which message of a stdio process.

Rules of this file:

1. A response goes to whoever asked. Nobody gets another's: one wire serves one principal.
2. Legacy: one wire per session, so ids pass as they are. Modern: requests of one principal share a wire, so ids and
   progress tokens are replaced by our own on the way in and restored on the way out, ``subscriptionId`` included.
3. What belongs to no request goes to one that takes events, else to the session's ``GET`` stream, else waits for one.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from whygate.core.reasons import Code
from whygate.mcp import splices
from whygate.mcp.backend import Outgoing, Server
from whygate.mcp.envelope import Envelope
from whygate.mcp.mirrors import Mirrors
from whygate.mcp.process import LINE_CAP_BYTES, Process
from whygate.transport.upstream import UpstreamError

SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"
_KEPT: Final = 64
"""Messages kept for a stream that is not open yet."""
_QUEUED: Final = 1000
"""Messages that a slow client may leave lying; a request that has more is cut off rather than fill the memory."""
_QUEUED_BYTES: Final = 2 * LINE_CAP_BYTES
"""And their bytes: a message alone may have 16 MiB. The same for what is kept."""

_DROPPED_TOLD: Final = 20
"""Lines that are no messages, as far as the log tells of them: a child that talks must not fill the disk."""

_encode: Final = msgspec.json.Encoder().encode
_log = logging.getLogger("whygate.mcp.stdio")

Id = int | str


class Waiter:
    """A request in flight, or a ``GET`` stream: what arrives for it, in order."""

    __slots__ = ("_bytes", "answered", "id", "learn", "queue", "takes_events", "token", "wire_id")

    def __init__(self, identity: Id | None, wire_id: Id | None, token: Id | None, *, takes_events: bool) -> None:
        self.id = identity
        self.wire_id = wire_id
        self.token = token
        """The progress token as the client chose it."""
        self.takes_events = takes_events
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
        self._bytes = 0
        self.answered = False
        """The response is in the queue, or was taken from it."""
        self.learn: Callable[[msgspec.Raw], None] | None = None
        """Wants to know the result, too."""

    def put(self, message: bytes | None) -> None:
        self._bytes += len(message or b"")
        if self.queue.full() or self._bytes > _QUEUED_BYTES:
            while not self.queue.empty():
                self.queue.get_nowait()
            self._bytes, message = 0, None
        self.queue.put_nowait(message)

    async def next(self, timeout_s: float | None) -> bytes:
        """The next message. Raises ``UpstreamError`` where the process ended, or was silent for too long."""
        try:
            # A message that is there already costs no timer.
            message = (
                await asyncio.wait_for(self.queue.get(), timeout_s) if self.queue.empty() else self.queue.get_nowait()
            )
        except TimeoutError:
            raise UpstreamError(Code.UPSTREAM_TIMEOUT, "the tool did not answer in time") from None
        if message is None:
            self.put(None)
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool's process ended")
        self._bytes -= len(message)
        return message


class _Params(msgspec.Struct):
    """Of a notification: by what it says to whom it belongs."""

    progress_token: int | str | None = msgspec.field(default=None, name="progressToken")
    meta: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="_meta")


class _Meta(msgspec.Struct):
    subscription: int | str | None = msgspec.field(default=None, name=SUBSCRIPTION_KEY)


class Wire:
    """One process and those who wait for it."""

    def __init__(self, server: Server, *, modern: bool, on_end: Callable[["Wire"], None]) -> None:
        self._name = server.name
        self._modern = modern
        self._end = on_end
        self._process = Process(server, self._line, self._ended)
        self._waiting: dict[Id, Waiter] = {}
        self._stream: Waiter | None = None
        self._kept: deque[bytes] = deque(maxlen=_KEPT)
        self._ids = itertools.count(1)
        self._dropped = 0
        self.mirrors = Mirrors()
        self.spoke = False
        """It has written at least one message."""
        self.ended = False
        self.stopping = False

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or self._stream is not None

    async def start(self) -> None:
        await self._process.start()

    async def stop(self) -> None:
        self.stopping = True
        await self._process.stop()

    async def tell(self, message: bytes) -> None:
        """Write a notification or a response."""
        await self._process.write(message)

    async def ask(self, out: Outgoing) -> Waiter | None:
        """Write a request. ``None`` where this id is in flight already. Pair with ``forget``."""
        envelope = out.envelope
        token = envelope.meta.get("progressToken")
        if not isinstance(token, int | str):
            token = None
        wire_id: Id = next(self._ids) if self._modern else (envelope.id if envelope.id is not None else "")
        if wire_id in self._waiting:
            return None
        waiter = Waiter(envelope.id, wire_id, token, takes_events=out.takes_events)
        if self._modern and envelope.method == "tools/list":
            waiter.learn = partial(self.mirrors.learn, first="cursor" not in envelope.params)
        self._waiting[wire_id] = waiter
        try:
            await self._process.write(_renumbered(out.body, wire_id, token) if self._modern else out.body)
        except BaseException:
            del self._waiting[wire_id]
            raise
        return waiter

    async def forget(self, waiter: Waiter) -> None:
        """Nobody waits any more. In the modern era that cancels the request (2026-07-28, basic/transports)."""
        if waiter.wire_id is not None:
            self._waiting.pop(waiter.wire_id, None)
        if self._modern and not waiter.answered and not self.ended and not self.stopping:
            params = {"requestId": waiter.wire_id, "reason": "the client has left"}
            note = _encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
            try:
                await self._process.write(note)
            except UpstreamError:
                _log.debug("%s: gone before it could be told of a cancellation", self._name)

    def cancelled(self, envelope: Envelope) -> bytes | None:
        """A modern client's own ``notifications/cancelled`` for the process; ``None`` where no such request runs."""
        for wire_id, waiter in self._waiting.items():
            if waiter.id == envelope.params.get("requestId"):
                params = dict(envelope.params) | {"requestId": wire_id}
                return _encode({"jsonrpc": "2.0", "method": envelope.method, "params": params})
        return None

    def listen(self) -> Waiter | None:
        """Open the session's ``GET`` stream; ``None`` where one is open."""
        if self._stream is not None:
            return None
        self._stream = Waiter(None, None, None, takes_events=True)
        while self._kept:
            self._stream.put(self._kept.popleft())
        return self._stream

    def unlisten(self) -> None:
        self._stream = None

    def _ended(self) -> None:
        self.ended = True
        for waiter in (*self._waiting.values(), *filter(None, (self._stream,))):
            waiter.put(None)
        self._end(self)

    def _line(self, line: bytes) -> None:
        message = splices.opened(line)
        if message is None:
            self._dropped += 1
            if self._dropped <= _DROPPED_TOLD:
                more = "" if self._dropped < _DROPPED_TOLD else "; no more is said of such lines"
                _log.warning("%s: wrote a line that is no JSON-RPC message; it is dropped%s", self._name, more)
            return
        self.spoke = True
        if not message.method:
            self._response(message, line)
            return
        params = _params(message.params)
        if message.method == "notifications/progress" and params.progress_token is not None:
            waiter = self._by_token(params.progress_token)
            if waiter is not None:
                token = {"progressToken": waiter.token}
                waiter.put(_with_params(line, token) if self._modern else line)
                return
        subscription = _meta(params.meta).subscription
        if self._modern and subscription is not None and (waiter := self._waiting.get(subscription)) is not None:
            meta = (splices.members(params.meta) or {}) | {SUBSCRIPTION_KEY: msgspec.Raw(_encode(waiter.id))}
            waiter.put(_with_params(line, {"_meta": meta}))
            return
        self._anyone(line)

    def _response(self, message: splices.Message, line: bytes) -> None:
        identity = message.id if isinstance(message.id, int | str) else None
        waiter = self._waiting.get(identity) if identity is not None else None
        if waiter is None or waiter.answered:
            _log.debug("%s: a response that nobody waits for is dropped", self._name)
            return
        if self._modern:
            parts: dict[str, Any] = dict(splices.members(line) or {})
            parts["id"] = waiter.id
            line = _encode(parts)
        if waiter.learn is not None and message.result:
            waiter.learn(message.result)
        waiter.answered = True
        waiter.put(line)

    def _by_token(self, token: Id) -> Waiter | None:
        if self._modern:
            return self._waiting.get(token)
        return next((waiter for waiter in self._waiting.values() if waiter.token == token), None)

    def _anyone(self, line: bytes) -> None:
        """Something that names no request: the newest that takes events is the likeliest cause of it."""
        for waiter in reversed(self._waiting.values()):
            if waiter.takes_events and not waiter.answered:
                waiter.put(line)
                return
        if self._stream is not None:
            self._stream.put(line)
        elif not self._modern:
            self._kept.append(line)
            while sum(map(len, self._kept)) > _QUEUED_BYTES:
                self._kept.popleft()


def _renumbered(body: bytes, wire_id: Id, token: Id | None) -> bytes:
    parts: dict[str, Any] = dict(splices.members(body) or {})
    parts["id"] = wire_id
    if token is not None:
        params: dict[str, Any] = dict(splices.members(parts["params"]) or {})
        meta: dict[str, Any] = dict(splices.members(params["_meta"]) or {})
        meta["progressToken"] = wire_id
        params["_meta"] = meta
        parts["params"] = params
    return _encode(parts)


def _with_params(line: bytes, changes: dict[str, Any]) -> bytes:
    parts: dict[str, Any] = dict(splices.members(line) or {})
    parts["params"] = (splices.members(parts["params"]) or {}) | changes
    return _encode(parts)


def _params(raw: msgspec.Raw) -> _Params:
    try:
        return msgspec.json.decode(raw, type=_Params) if raw else _Params()
    except msgspec.DecodeError:
        return _Params()


def _meta(raw: msgspec.Raw) -> _Meta:
    try:
        return msgspec.json.decode(raw, type=_Meta) if raw else _Meta()
    except msgspec.DecodeError:
        return _Meta()
