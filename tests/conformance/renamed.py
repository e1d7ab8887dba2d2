"""Lets the suite, which knows tools by their own names, call them by the merged address's.

Rules:
1. Upward ``server__`` is put before the tool's name, in the body and in ``Mcp-Name``; downward it is taken away again.
2. A credential is put in, which the suite can't send. Everything else passes, as it arrives.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.servers.gateway import Running

from whygate.testing.serve import served
from whygate.transport.asgi import Exchange, Receive, Scope, Send
from whygate.transport.upstream import Upstreams

_OWN = frozenset((b"connection", b"content-length", b"host", b"transfer-encoding"))


class _Renamed:
    def __init__(self, url: str, prefix: str, credential: str) -> None:
        self._url = url
        self._prefix = prefix
        self._credential = credential
        self.upstreams = Upstreams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        body = await exchange.body(2**24)
        headers = [
            (name.decode(), (self._prefix if name == b"mcp-name" else "") + value.decode("latin-1"))
            for name, value in exchange.headers
            if name not in _OWN
        ]
        message = json.loads(body) if body else None
        if isinstance(message, dict) and message.get("method") == "tools/call":
            message["params"]["name"] = self._prefix + message["params"]["name"]
            body = json.dumps(message).encode()
        headers.append(("authorization", f"Bearer {self._credential}"))
        async with self.upstreams.send(exchange.method, self._url, headers, body) as answer:
            kept = [(name.encode(), value.encode()) for name, value in answer.headers if name.encode() not in _OWN]
            await exchange.start(answer.status, kept)
            async for chunk in answer.chunks():
                await exchange.send(chunk.replace(f'"{self._prefix}'.encode(), b'"'))
            await exchange.end()


@asynccontextmanager
async def renamed(gateway: Running, server: str) -> AsyncIterator[str]:
    """The merged address, with the tools of ``server`` under their own names."""
    app = _Renamed(f"{gateway.url}/mcp", f"{server}__", gateway.tokens.make())
    try:
        async with served(app) as url:
            yield url
    finally:
        await app.upstreams.close()
