"""The operators' HTTP server: granian, embedded. Its embedded form calls itself experimental, so it stays behind this one
file. Agents have ``transport.server``.
"""

import asyncio
import contextlib
import socket
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from whygate.transport.server import AddressInUse

BACKLOG: Final = 2048
"""Connections that the kernel holds while the loop is busy: a burst of clients is not a reason to refuse."""
CONNECTIONS: Final = 8192
"""Served at once. Beyond, new ones wait: so a client that holds many open must not reach it easily."""
STOP_S: Final = 2.0
"""For operators' requests, which are short; one that stays would hold the exit for ever (measured with granian 2.8.7)."""


class Listener:
    """One ASGI application on one address."""

    def __init__(self, app: Any, address: str, *, lifespan: bool = False) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self._host, self._port = host.strip("[]"), int(port)
        self._server = Server(
            app,
            address=self._host,
            port=self._port,
            interface=Interfaces.ASGI if lifespan else Interfaces.ASGINL,
            websockets=False,
            backlog=BACKLOG,
            backpressure=CONNECTIONS,
            # MCP needs no more, and the limits below are HTTP/1's.
            http=HTTPModes.http1,
            log_enabled=False,
            # Long enough for an agent that thinks between two calls; shorter than what proxies in between allow.
            http1_settings=HTTP1Settings(keep_alive=True, header_read_timeout=30_000),
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when connections are accepted. Raises whatever ended the server, if it ended."""
        self._task = asyncio.create_task(self._server.serve())
        while not self._task.done():
            try:
                _, writer = await asyncio.open_connection(self._host, self._port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return
        self._task.result()

    async def stop(self) -> None:
        """Refuse new connections, let what is under way finish for ``STOP_S``, and end."""
        if self._task is not None:
            self._server.stop()  # type: ignore[no-untyped-call]  # granian types everything but this
            # Not `wait_for`: cancelled, the server would trip over its own end.
            await asyncio.wait({self._task}, timeout=STOP_S)


def check(address: str) -> None:
    """Raise ``AddressInUse`` now, with the address in it, instead of from inside a server."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise AddressInUse(f"{address}: {error.strerror}") from None
