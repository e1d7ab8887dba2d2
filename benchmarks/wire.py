"""HTTP/1.1 with as little as a benchmark needs: bodies by content-length, connections kept alive. Loopback only."""

import asyncio
from typing import Any, NamedTuple

import uvloop

HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"


class Unreadable(Exception):
    """Not an answer that this parser reads: no status line, or no content-length."""


class Message(NamedTuple):
    """A request or an answer. ``head`` is in lower case, so that headers can be looked for in it."""

    head: bytes
    body: bytes
    size: int
    """How many bytes it took, head and body."""

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.head[9:12])

    def header(self, name: bytes) -> bytes:
        """A header's value; empty where it is absent."""
        _, found, rest = self.head.partition(b"\r\n" + name + b":")
        return rest.partition(b"\r\n")[0].strip() if found else b""


def read_message(data: bytes) -> Message | None:
    """The first message in ``data``; ``None`` while it is not whole. Raises ``Unreadable`` for other framings."""
    end = data.find(HEAD_END)
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(LENGTH)
    if at < 0:
        if head.startswith((b"get ", b"head ", b"delete ")):
            return Message(head, b"", end + 4)
        raise Unreadable(f"no content-length: {head[:200]!r}")
    stop = head.find(b"\r\n", at + 2)
    try:
        length = int(head[at + len(LENGTH) : stop if stop > 0 else None])
    except ValueError:
        raise Unreadable(f"content-length is no number: {head[:200]!r}") from None
    size = end + 4 + length
    return Message(head, data[end + 4 : size], size) if len(data) >= size else None


def response(body: bytes, *, extra: bytes = b"", media_type: bytes = b"application/json") -> bytes:
    """A whole answer, status 200."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (
        media_type,
        extra,
        len(body),
        body,
    )


class ServerProtocol(asyncio.Protocol):
    """Answers each request in turn with what ``reply`` makes of it."""

    def __init__(self) -> None:
        self._rest = b""
        self._transport: Any = None  # uvloop's transports are no subclasses of asyncio's

    def reply(self, message: Message) -> bytes:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        while data:
            try:
                message = read_message(data)
            except Unreadable:
                self._transport.write(b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                self._transport.close()
                return
            if message is None:
                break
            self._transport.write(self.reply(message))
            data = data[message.size :]
        self._rest = data


def serve(protocol: type[ServerProtocol], port: int) -> None:
    """Serve on loopback until the process is ended."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, backlog=512)
        await server.serve_forever()

    uvloop.run(run())
