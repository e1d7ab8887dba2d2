"""One request and its response, as ASGI's ``receive`` and ``send`` (https://asgi.readthedocs.io/en/latest/specs/www.html).

What an application sends can't break out of a header: a line break in one is an error, and nothing of it is sent.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

from whygate.transport.asgi import ARRIVED, LEFT, Header, Message, Scope

_LINES: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
_BODILESS: Final = frozenset((204, 304))
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_GONE: Final[Message] = {"type": "http.disconnect"}


class Outlet(Protocol):
    """The connection that a request came on."""

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Return when the client has taken enough of what was written."""

    def date(self) -> bytes:
        """The ``date`` header of this second, with its line break."""

    def future(self) -> "asyncio.Future[None]": ...

    def go_on(self) -> None:
        """The application has taken what was read ahead."""


class Turn:
    """One request and its response: ASGI's ``receive`` and ``send``."""

    __slots__ = (
        *("_chunked", "_complete", "_connection", "_continued", "_head", "_parts", "_size", "_taken", "_told"),
        "_waiter",
        *("answered", "begun", "ends", "left", "scope"),
    )

    def __init__(self, connection: Outlet, scope: Scope, *, ends: bool) -> None:
        self._connection = connection
        self.scope = scope
        self.ends = ends
        """The connection ends with the answer."""
        self._parts: list[bytes] = []
        self._size = 0
        self._complete = self._taken = self._continued = False
        self.left = False
        """The client has, or what it sends can't be read on."""
        self._told: Callable[[], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._head: Message | None = None
        self._chunked = False
        self.begun = False
        """Something of the answer was written."""
        self.answered = False
        """All of it was."""

    # --- what comes in ---

    def take(self, body: bytes) -> int:
        self._parts.append(body)
        self._size += len(body)
        self._wake()
        return self._size

    def whole(self) -> None:
        self._complete = True
        self._wake()

    def disconnect(self) -> None:
        self.left = True
        told, self._told = self._told, None
        if told is not None:
            told()
        self._wake()

    def on_left(self, told: Callable[[], None] | None) -> None:
        """Whom to call, once, when the client has left."""
        self._told = told
        if self.left and told is not None:
            self.disconnect()

    def arrived(self, cap_bytes: int) -> bytes | None:
        """The whole body, if it is there and not above the cap; ``receive`` does not give it again."""
        if not self._complete or self._taken or self._size > cap_bytes:
            return None
        self._taken = True
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def let_go(self) -> None:
        """The application is done. Without this each request would be a circle (turn, scope, method) that only the collector
        takes away, and all calls wait while it does.
        """
        self.scope.pop(ARRIVED, None)
        self.scope.pop(LEFT, None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """The body as far as it has come, then, once there is nothing more to wait for, that the client has left."""
        if not self._continued:
            self._continued = True
            if not (self._complete or self._parts or self.begun or self.left) and self._expected():
                self._connection.write(_CONTINUE)  # RFC 9110 section 10.1.1: whoever asks first waits for this
        while True:
            if not self._taken and (self._complete or (self._parts and not self.left)):
                body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts, self._size = [], 0
                self._taken = self._complete
                if not self._complete:
                    self._connection.go_on()
                return {"type": "http.request", "body": body, "more_body": not self._complete}
            if self.left or self.answered:
                return _GONE
            self._waiter = self._connection.future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _expected(self) -> bool:
        return self.scope["http_version"] != "1.0" and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.scope["headers"]
        )

    # --- what goes out ---

    async def send(self, message: Message) -> None:
        """A part of the answer. Raises ``ValueError`` for a header with a line break in it, ``RuntimeError`` out of turn.
        What is sent to a client that has left is dropped.
        """
        if message["type"] == "http.response.start":
            if self._head is not None:
                raise RuntimeError("the response has started already")
            self._head = message
            return
        if self._head is None or self.answered:
            raise RuntimeError("no response to send a body of")
        body, more = message.get("body", b""), message.get("more_body", False)
        bodiless = self.scope["method"] == "HEAD" or self._head["status"] in _BODILESS
        data = b"" if bodiless else body
        if not self.begun:
            data = self._started(self._head, body, more=more, bodiless=bodiless) + self._cut(data, more=more)
            self.begun = True
        else:
            data = self._cut(data, more=more)
        if not more:
            self.answered = True
        if data:
            self._connection.write(data)
            await self._connection.drained()
        if not more:
            self._wake()

    def _cut(self, data: bytes, *, more: bool) -> bytes:
        if not self._chunked:
            return data
        cut = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return cut if more else cut + b"0\r\n\r\n"

    def _started(self, message: Message, body: bytes, *, more: bool, bodiless: bool) -> bytes:
        headers, status = message["headers"], message["status"]
        length = close = False
        if status in _BODILESS:
            headers = [header for header in headers if header[0] != b"content-length"]  # RFC 9110 section 8.6
        if not self._complete:
            self.ends = True  # whether the rest of the body ever comes, nobody will wait to see
        for name, value in headers:
            if name == b"content-length":
                length = True
            elif name == b"connection" and value == b"close":
                close = self.ends = True
        extra = b""
        if not length and not bodiless:
            if not more:
                extra = b"content-length: %d\r\n" % len(body)
            elif self.scope["http_version"] == "1.0":
                self.ends = True
            else:
                self._chunked = True
                extra = b"transfer-encoding: chunked\r\n"
        if self.ends and not close:
            extra += b"connection: close\r\n"
        return self.head(status, headers, extra)

    def head(self, status: int, headers: list[Header], extra: bytes) -> bytes:
        """Status line and headers. Raises ``ValueError`` for a line break in one of them."""
        line = _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
            raise ValueError("a response header holds a line break")
        return b"%b%b%b%b\r\n" % (line, lines, extra, self._connection.date())
