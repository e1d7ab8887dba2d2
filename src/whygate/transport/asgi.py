"""One HTTP exchange with an agent, over ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html).

Raw on purpose: every call passes here.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final

from whygate.transport.load import MAX_HELD_BYTES, MAX_STREAMS, Load

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
Header = tuple[bytes, bytes]

DISCARD_BYTES: Final = 64 * 1024 * 1024
"""Of a body above its cap, so much is read for the sake of an explanation; then the connection breaks."""
BODY_S: Final = 60.0
"""For a whole body: 4 MiB at half a megabit a second. The server has no limit of its own, and whoever trickles holds a
connection (measured with granian 2.8.7: as many of them as it accepts at once, and nobody else is served)."""
DISCARD_S: Final = 5.0
"""For the body of a caller who gets no further anyway."""
ARRIVED: Final = "whygate.arrived"
"""In the scope of our own server: a function of a cap, which gives the whole body where it is there already and not above the
cap, and ``None`` otherwise. Most are there, and need no timer.
"""
LEFT: Final = "whygate.left"
"""Likewise: a function of whom to call once, without waiting, when the client has left; ``None`` takes it back."""
JSON: Final[Header] = (b"content-type", b"application/json")
_LENGTH: Final = re.compile(r"[0-9]{1,19}")
"""RFC 9110 section 8.6. ``str.isdigit`` holds of digits that ``int`` does not read, and ``int`` refuses thousands of them."""


_NOBODYS: Final = Load()


class BodyTooLarge(Exception):
    """The request's body is above the cap. Nothing of it was used."""


class BodyTooSlow(Exception):
    """The request's body did not come whole within ``BODY_S``. Nothing of it was used."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Crowded(ClientGone):
    """Too much of others' bodies is held already. As with a client that left, there is nothing more to do about the
    exchange: the listener itself answers (``overload.shed``).
    """


class Exchange:
    """A request and its response. Not shared between tasks."""

    __slots__ = (
        *("_fields", "_load", "_receive", "_send", "_twice", "crowded", "headers", "held_bytes", "method", "path"),
        *("query", "raw_path", "scope", "started"),
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, load: Load = _NOBODYS) -> None:
        """``load`` is that of the listener, which has counted this exchange as busy."""
        self.scope = scope
        self._receive = receive
        self._send = send
        self._load = load
        self.held_bytes = 0
        """Of the body, as counted in the load."""
        self.crowded = False
        """Whether the body was given up because of all the others."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        self.query: bytes = scope.get("query_string", b"")
        self.headers: list[Header] = scope["headers"]
        self._fields = dict(self.headers)
        """By name; of one that came several times, the last."""
        self._twice = len(self._fields) != len(self.headers)
        self.started = False
        """Whether the response's status has been sent."""

    @property
    def client(self) -> str:
        """The peer's address without port; empty where the server does not know it (unix sockets)."""
        peer = self.scope.get("client")
        return str(peer[0]) if peer else ""

    def values(self, name: bytes) -> list[str]:
        """All values of a header; ``name`` in lower case. Bytes are read as Latin-1 (RFC 9110 section 5.5)."""
        if self._twice:
            return [value.decode("latin-1") for key, value in self.headers if key == name]
        value = self._fields.get(name)
        return [] if value is None else [value.decode("latin-1")]

    def header(self, name: bytes) -> str | None:
        """The first value of a header, ``None`` where it is absent. Does not check that it is the only one."""
        if name not in self._fields:
            return None
        return next(value for key, value in self.headers if key == name).decode("latin-1")

    async def body(self, cap_bytes: int) -> bytes:
        """The whole body. Raises ``BodyTooLarge`` above the cap, ``BodyTooSlow``, and ``ClientGone`` where it never came
        whole.
        """
        arrived = self.scope.get(ARRIVED)
        if arrived is not None and (body := arrived(cap_bytes)) is not None:
            return bytes(body)
        self._load.busy -= 1  # to wait for a client is no work
        try:
            async with asyncio.timeout(BODY_S):
                return await self._whole(cap_bytes)
        except TimeoutError:
            raise BodyTooSlow from None
        finally:
            self._load.busy += 1

    async def discard(self) -> None:
        """Read the body and forget it, so that a refusal reaches a caller who is still sending; not for long."""
        if self._asks_first():
            return
        self._load.busy -= 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DISCARD_S):
                    await self._discard(0)
        finally:
            self._load.busy += 1

    async def _whole(self, cap_bytes: int) -> bytes:
        length = self.header(b"content-length")
        if length is not None and _LENGTH.fullmatch(length) is not None and int(length) > cap_bytes:
            if not self._asks_first():
                await self._discard(0)
            raise BodyTooLarge
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(body) > cap_bytes:
                raise BodyTooLarge
            return body
        parts, size = [body], len(body)
        self._hold(size)
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > cap_bytes:
                parts.clear()
                await self._discard(size)
                raise BodyTooLarge
            self._hold(len(part))
            parts.append(part)
        return b"".join(parts)

    def _asks_first(self) -> bool:
        """The caller sends no body before it is told to: it can be refused at once (RFC 9110 section 10.1.1)."""
        return (self.header(b"expect") or "").lower() == "100-continue"

    def _hold(self, size: int) -> None:
        """Count bytes of a body until the listener is done with the exchange. Raises ``Crowded``."""
        load = self._load
        if load.held_bytes + size > MAX_HELD_BYTES:
            self.crowded = True
            raise Crowded
        load.hold(size)
        self.held_bytes += size

    async def _discard(self, size: int) -> None:
        """Read the rest and forget it: a client that is still sending would see a broken connection instead of why."""
        more = True
        while more and size <= DISCARD_BYTES:
            message = await self._receive()
            size += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """For as long as a stream of news lasts: it counts among the listener's streams, while there is room, not as work."""
        load = self._load
        if load.streams >= MAX_STREAMS:
            yield
            return
        load.busy -= 1
        load.streams += 1
        task = asyncio.current_task()
        load.resting.add(task)  # type: ignore[arg-type]  # an application runs in a task
        try:
            yield
        finally:
            load.resting.discard(task)
            load.busy += 1
            load.streams -= 1

    def on_gone(self, told: Callable[[], None] | None) -> bool:
        """Have ``told`` called when the client has closed the connection, or nobody any more; whether the server can do that.
        Costs nothing while nothing happens, where waiting for ``gone`` needs a task.
        """
        asked = self.scope.get(LEFT)
        if asked is None:
            return False
        asked(told)
        return True

    async def gone(self) -> None:
        """Return when the client has closed the connection. Call only after ``body``."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """Send a whole response."""
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, status: int, headers: Iterable[Header], *, at_once: bool = False) -> None:
        """Send status and headers of a streamed response, with its first part, or ``at_once``: who waits for news wants to know
        that the stream is there.
        """
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})
        if at_once:
            await self.send(b"")

    async def send(self, chunk: bytes) -> None:
        """Send a part of a streamed response."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        """End a streamed response."""
        await self._send({"type": "http.response.body", "body": b""})
