"""Adds a credential to every request of a client that can't send one, and changes nothing else.

Rules:
1. Bytes pass as they are, both ways, as they arrive: request lines, `Host`, header case, streams, chunks. Only one header
   line is put in, at the end of each request's head.
2. Whoever hangs up is heard on the other side at once.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_END = b"\r\n\r\n"
_Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _upward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> None:
    """Requests, one after the other, until the client hangs up. Raises `IncompleteReadError` then."""
    while True:
        head = await reader.readuntil(_END)
        writer.write(head.removesuffix(b"\r\n") + line + b"\r\n")
        if _CHUNKED.search(head):
            size = -1
            while size != 0:
                announced = await reader.readuntil(b"\r\n")
                size = int(announced.split(b";")[0], 16)
                writer.write(announced + await reader.readexactly(size + 2))  # and the line end after each chunk
        elif length := _LENGTH.search(head):
            writer.write(await reader.readexactly(int(length[1])))
        await writer.drain()


async def _downward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    """What was written still arrives, unless nobody has the time to wait for it."""
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        return
    except asyncio.CancelledError:
        writer.transport.abort()
        raise


class _Badge:
    def __init__(self, host: str, port: int, line: bytes) -> None:
        self._to = (host, port)
        self._line = line
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(*self._to)
            try:
                await self._pass((reader, back), (there, writer))
            finally:
                await _close(back)
        except asyncio.CancelledError:
            return  # by `stop`, and nobody else
        finally:
            await _close(writer)
            self._tasks.discard(task)

    async def _pass(self, up: _Way, down: _Way) -> None:
        """Both ways at once, until one of them ends: the suite sees in its own table what went wrong."""
        ways = [asyncio.ensure_future(_upward(*up, self._line)), asyncio.ensure_future(_downward(*down))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def badge(port: int, *, to_port: int, credential: str) -> AsyncIterator[None]:
    """Listen on loopback's ``port``, pass everything to ``to_port`` with ``Authorization: Bearer <credential>``."""
    made = _Badge("127.0.0.1", to_port, f"Authorization: Bearer {credential}\r\n".encode())
    server = await asyncio.start_server(made.connected, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        await made.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await server.wait_closed()
