"""The agents' listener: which edge a path belongs to. Raw ASGI, because every call passes here."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from whygate.transport.asgi import JSON, Exchange, Receive, Scope, Send

METADATA: Final = "/.well-known/oauth-protected-resource"
_RESOURCE: Final = re.compile(r"/(?:mcp|http)/[a-z0-9_-]{1,64}")
McpHandler = Callable[[str, Exchange], Awaitable[None]]
HttpHandler = Callable[[str, bytes, Exchange], Awaitable[None]]


class AgentsApp:
    """``/mcp/{server}`` and ``/http/{tool}/…``. Every other path goes to the HTTP edge as a tool that does not exist, so
    that it is refused, recorded and explained like everything else.
    """

    def __init__(self, mcp: McpHandler, http: HttpHandler, public_url: str, issuers: Sequence[str]) -> None:
        self._mcp = mcp
        self._http = http
        self._public_url = public_url.rstrip("/")
        self._issuers = tuple(issuers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        path = exchange.raw_path
        if path.startswith(b"/mcp/"):
            await self._mcp(path[5:].decode("latin-1"), exchange)
            return
        if path.startswith(b"/http/"):
            name, slash, rest = path[6:].partition(b"/")
            await self._http(name.decode("latin-1"), slash + rest or b"/", exchange)
            return
        if exchange.method == "GET" and exchange.path.startswith(METADATA):
            await self._metadata(exchange)
            return
        await self._http("", b"/", exchange)

    async def _metadata(self, exchange: Exchange) -> None:
        """Protected resource metadata (RFC 9728 section 3): who issues tokens for us. Public, and the same for everybody.

        The resource's own path stands behind the well-known one (section 3.1); what is not one of ours is ours as a whole.
        """
        path = exchange.path.removeprefix(METADATA)
        resource = self._public_url + (path if _RESOURCE.fullmatch(path) else "")
        body = {
            "resource": resource,
            "authorization_servers": self._issuers,
            "bearer_methods_supported": ["header"],
            "resource_name": "whygate",
        }
        await exchange.respond(200, [JSON, (b"cache-control", b"max-age=300")], msgspec.json.encode(body))
