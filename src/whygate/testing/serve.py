"""Serve an ASGI application on loopback inside the running loop, as the gateway itself is served (``lifespan``: its operators' side)."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from whygate.serving import Listener
from whygate.transport.server import HttpServer


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def served(app: Any, *, port: int = 0, lifespan: bool = False) -> AsyncIterator[str]:
    """Yields the base URL, without a trailing slash."""
    address = f"127.0.0.1:{port or free_port()}"
    listener = Listener(app, address, lifespan=True) if lifespan else HttpServer(app, address)
    await listener.start()
    try:
        yield f"http://{address}"
    finally:
        await listener.stop()
