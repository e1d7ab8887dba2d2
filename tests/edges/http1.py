"""A server of ours with an application that does as it is told, and clients that write bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from whygate.testing.serve import free_port
from whygate.transport.framing import UNREADABLE
from whygate.transport.server import HttpServer


class App:
    """Answers what it was asked, or does what the path says. ``seen``: method, target and body of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, bytes]] = []
        self.scopes: list[Any] = []
        self.entered = asyncio.Event()
        self.let = asyncio.Event()
        self.gone = asyncio.Event()
        self.read = self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if UNREADABLE in scope:
            await self.answer(send, scope[UNREADABLE], b"unreadable")
            return
        act: Callable[[Any, Any, Any], Awaitable[None]] = getattr(
            self, "do_" + scope["raw_path"].decode().strip("/").partition("/")[0], self.do_echo
        )
        await act(scope, receive, send)

    async def answer(self, send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    async def body(self, receive: Any) -> bytes | None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return None
            body += message["body"]
            self.read += len(message["body"])
            if not message["more_body"]:
                return body

    async def do_echo(self, scope: Any, receive: Any, send: Any) -> None:
        body = await self.body(receive)
        if body is None:
            return
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        self.seen.append((scope["method"], target, body))
        await self.answer(send, 200, b"%b %b %b" % (scope["method"].encode(), target, body))

    async def do_hold(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered.set()
        await self.let.wait()
        await self.do_echo(scope, receive, send)

    async def do_gone(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered.set()
        await self.body(receive)
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    async def do_early(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(send, 413, b"why")

    async def do_stream(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        self.entered.set()
        await self.let.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async def do_flood(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while self.sent < 4000:
            self.entered.set()
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            self.sent += 1

    async def do_status(self, scope: Any, receive: Any, send: Any) -> None:
        status = int(scope["raw_path"].rpartition(b"/")[2])
        await self.answer(send, status, b"body", (b"content-length", b"4"))

    async def do_raise(self, scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("as told")

    async def do_break(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("as told")

    async def do_inject(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(send, 200, b"", (b"x", b"a\r\nset-cookie: b"))


class Client:
    """A connection that bytes are written on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of the next answer."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:-2])}
        body = b""
        if not head and b"content-length" in headers:
            body = await self.reader.readexactly(int(headers[b"content-length"]))
        elif not head and b"transfer-encoding" in headers:
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        return int(lines[0].split()[1]), headers, body

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read()
        return b""


@asynccontextmanager
async def server(app: Any = None) -> AsyncIterator[tuple[Any, HttpServer, Callable[[], Awaitable[Client]]]]:
    """An application, its server, and a function that connects."""
    app = app or App()
    made = HttpServer(app, f"127.0.0.1:{free_port()}")
    await made.start()
    clients = []

    async def connect() -> Client:
        host, _, port = made.address.rpartition(":")
        client = Client(*await asyncio.open_connection(host, int(port)))
        clients.append(client)
        return client

    try:
        yield app, made, connect
    finally:
        for client in clients:
            client.writer.transport.abort()
        if isinstance(app, App):
            app.let.set()
        await made.stop()


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until it is so; the test's own timeout ends what never is."""
    while not true():  # noqa: ASYNC110  what is waited for tells nobody of itself
        await asyncio.sleep(0)
