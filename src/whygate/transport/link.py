"""One connection to an upstream over HTTP/1.1, and the answer that comes on it.

Rules of this file:

1. Framing is read by llhttp (httptools), strictly. An answer is whole when its framing says so; a connection that ends
   before is an answer broken off, and one that says more than it was asked for is not used again (RFC 9112 section 6.3).
2. What is read ahead of the agent is bounded; an upstream that is not waited for is not timed either.
3. A request is sent once. Whether one that was broken off was acted on, nobody knows, so nobody repeats it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import httptools

from whygate.core.reasons import Code
from whygate.transport.asgi import Header

MAX_HEAD_BYTES: Final = 256 * 1024
"""Of an answer's status line and headers, and of what frames its body (chunks' extensions, trailers) without any of it."""
MAX_HEADERS: Final = 128
"""As many as an agent's may have. Clients in common use give up at a hundred or so."""
BUFFER_BYTES: Final = 256 * 1024
"""Of an answer's body, read ahead of whoever takes it."""
_BODILESS: Final = frozenset((204, 304))


class UpstreamError(Exception):
    """The upstream could not be reached, did not answer in time, or broke off. ``code`` is a completion code."""

    def __init__(self, code: Code, note: str, *, sent: bool = True) -> None:
        super().__init__(note)
        self.code = code
        self.note = note
        self.sent = sent
        """Whether bytes of the request may have reached the upstream."""
        self.status = 0
        """Of its answer, where that broke off after its head."""
        self.received_bytes = 0


class Link(asyncio.Protocol):
    """A connection. Carries one request at a time; ``usable`` says whether it may carry another."""

    __slots__ = (
        *("_chunks", "_failed", "_head_bytes", "_headers", "_headless", "_in_head", "_loop", "_parser", "_size"),
        *("_timed", "_until_close", "_waiter", "asked", "heard", "key", "length", "on_lost", "status", "transport"),
        *("usable", "whole"),
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, key: object, on_lost: "Callable[[Link], None]") -> None:
        self._loop = loop
        self.key = key
        self.on_lost = on_lost
        self.usable = True
        self.asked = False
        """A request is under way."""
        self.heard = loop.time()
        """When something last came, or was last waited for."""
        self._waiter: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(
            self
        )  # one for all its answers: each has to end where the next begins
        self._clear(headless=False)

    def _clear(self, *, headless: bool) -> None:
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._in_head, self._headless = True, headless
        self._chunks: list[bytes] = []
        self._size = 0
        self._until_close = False
        self._failed: UpstreamError | None = None
        self.status = 0
        self.length = -1
        """As told; -1 where it was not."""
        self.whole = False
        """The answer has come to its end."""

    # --- for whoever asks ---

    def ask(self, request: bytes, *, headless: bool) -> None:
        """Send a request. ``headless``: its answer has no body whatever its headers say (``HEAD``)."""
        self._clear(headless=headless)
        self.asked = True
        self.transport.write(request)

    async def head(self) -> list[Header]:
        """The answer's headers; ``status`` is known then. Raises ``UpstreamError``."""
        while self._in_head:
            await self._more()
        return self._headers

    async def take(self) -> bytes:
        """What has come of the body since the last time; empty at its end. Raises ``UpstreamError``."""
        while not self._chunks:
            if self.whole:
                return b""
            await self._more()
        chunks, self._chunks = self._chunks, []
        if self._size > BUFFER_BYTES:
            self.transport.resume_reading()
        self._size = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _more(self) -> None:
        if self._failed is not None:
            raise self._failed
        self._waiter = self._loop.create_future()
        self.heard = self._loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None
        failed: UpstreamError | None = self._failed
        if failed is not None and not self._chunks:
            raise failed

    def done(self) -> bool:
        """The request is over; whether the connection may carry another. If not, it is closed."""
        self.asked = False
        if not self.whole or self._size > BUFFER_BYTES or self.transport.get_write_buffer_size():
            # Broken off; or not taken to its end, and so not read on; or answered before the request was there as a whole.
            self.usable = False
        if not self.usable:
            self.transport.abort()
        self.heard = self._loop.time()
        return self.usable

    def waits_since(self) -> float | None:
        """Since when somebody waits for the upstream; ``None`` where nobody does."""
        return None if self._waiter is None else self.heard

    def fail(self, code: Code, note: str) -> None:
        """End the answer, such as it is."""
        self.usable = False
        if self._failed is None:
            self._failed = UpstreamError(code, note)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the socket ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # what create_connection makes

    def data_received(self, data: bytes) -> None:
        if not self.asked or self.whole:
            self._spoilt()  # nobody asked for it: it would pass for the answer to the next request
            return
        self._head_bytes += len(data)
        self.heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._unreadable()
            return
        if self._head_bytes > MAX_HEAD_BYTES and not self.whole:
            self.fail(Code.UPSTREAM_FAILED, "the head of the tool's answer is too large")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._until_close and exc is None and not self.whole:
            self.whole = True
            self._wake()
        elif self.asked and not self.whole:
            self.fail(Code.UPSTREAM_FAILED, "the tool closed the connection")
        self.on_lost(self)

    def _unreadable(self) -> None:
        if self.whole:
            self._spoilt()
        else:
            self.fail(Code.UPSTREAM_FAILED, "the tool's answer is not HTTP that can be read")

    def _spoilt(self) -> None:
        self.usable = False
        self.transport.abort()

    # --- the parser ---

    def on_message_begin(self) -> None:
        if self.whole:
            self.usable = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._headers.append((name.lower(), value.strip(b" \t")))  # llhttp leaves what stands behind

    def on_headers_complete(self) -> None:
        if self.whole:
            return
        if len(self._headers) > MAX_HEADERS:
            raise ValueError("more headers than any tool needs")
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise ValueError("the upstream switched protocols")
            return
        self.status = status
        self._in_head = chunked = False
        for name, value in self._headers:
            if name == b"content-length":
                self.length = int(value)
            elif name == b"transfer-encoding":
                if chunked or value.lower() != b"chunked" or self._parser.get_http_version() != "1.1":
                    raise ValueError("a transfer coding that nobody asked for")
                chunked = True
        if self._headless or status in _BODILESS:
            # The parser would wait for a body that does not come; it is not asked again.
            self.whole, self.usable = True, self.usable and status in _BODILESS and self.length <= 0 and not chunked
        elif self.length < 0 and not chunked:
            self._until_close = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self.whole:
            return
        self._head_bytes = 0
        self._chunks.append(body)
        self._size += len(body)
        if self._size > BUFFER_BYTES:
            self.transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._in_head:
            self._headers = []  # 100 and 103: the answer itself is still to come (RFC 9110 section 15.2)
            return
        self.whole = True
        if not self._parser.should_keep_alive():
            self.usable = False
        self._wake()
