"""The agents' listener: which edge a path belongs to, and whether there is room for one more. Raw ASGI, because every call
passes here.

Above ``load``'s bounds a request is turned away as ``overload.shed``, before anything of it is looked at: recording it, or
only asking who calls, would be the way to take the gateway down. It is counted, and the ledger is told how many there were.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from whygate.core.reasons import Code
from whygate.flow.ports import Answer
from whygate.transport.asgi import JSON, Exchange, Receive, Scope, Send
from whygate.transport.load import MAX_BUSY, MAX_STREAMS, Load
from whygate.transport.refusals import problem, refusal_headers
from whygate.transport.under_way import UnderWay

METADATA: Final = "/.well-known/oauth-protected-resource"
_RESOURCE: Final = re.compile(r"/mcp|/(?:mcp|http)/[a-z0-9_-]{1,64}")
_MCP: Final = b"/mcp/"
McpHandler = Callable[[str, Exchange], Awaitable[None]]
HttpHandler = Callable[[str, bytes, Exchange], Awaitable[None]]


_SHED: Final = Answer(
    id="",
    outcome=Code.OVERLOAD_SHED.outcome,
    code=Code.OVERLOAD_SHED,
    note=Code.OVERLOAD_SHED.entry.user,
    next=Code.OVERLOAD_SHED.entry.next,
)
_SHED_HEADERS: Final = (
    (b"content-type", b"application/problem+json"),
    (b"connection", b"close"),  # a body may still be on its way, and nobody will read it
    *refusal_headers(_SHED, ""),
)
_SHED_BODY: Final = problem(_SHED)


class AgentsApp:
    """``/mcp`` and ``/mcp/{server}`` (the first as the server without a name), and ``/http/{tool}/…``. Every other path goes to the HTTP edge as a tool that does not exist, so
    that it is refused, recorded and explained like everything else.
    """

    def __init__(
        self,
        mcp: McpHandler,
        http: HttpHandler,
        public_url: str,
        issuers: Sequence[str],
        *,
        shed: Callable[[], None] = lambda: None,
    ) -> None:
        """``shed`` is told of each request that is turned away."""
        self._mcp = mcp
        self._http = http
        self._public_url = public_url.rstrip("/")
        self._issuers = tuple(issuers)
        self._shed = shed
        self.load = Load()
        self.under_way = UnderWay(self.load.resting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        load = self.load
        exchange = Exchange(scope, receive, send, load)
        path = exchange.raw_path
        if exchange.method == "GET" and (path.startswith(_MCP) or path == b"/mcp"):
            await self._stream(path, exchange)
            return
        if load.busy >= MAX_BUSY:
            await self._turn_away(exchange)
            return
        load.busy += 1
        task, calls = asyncio.current_task(), self.under_way.calls
        calls.add(task)  # type: ignore[arg-type]  # an application runs in a task
        try:
            if path.startswith(_MCP) or path == b"/mcp":
                await self._mcp(path[5:].decode("latin-1"), exchange)
            else:
                await self._plain(path, exchange)
        except asyncio.CancelledError:
            await self._goodbye(exchange)
        finally:
            calls.discard(task)
            load.busy -= 1
            if exchange.held_bytes:
                load.let_go(exchange.held_bytes)
        if exchange.crowded:
            await self._turn_away(exchange)

    async def _plain(self, path: bytes, exchange: Exchange) -> None:
        if path.startswith(b"/http/"):
            name, slash, rest = path[6:].partition(b"/")
            await self._http(name.decode("latin-1"), slash + rest or b"/", exchange)
            return
        if exchange.method == "GET" and (exchange.path == METADATA or exchange.path.startswith(METADATA + "/")):
            await self._metadata(exchange)
            return
        await self._http("", b"/", exchange)

    async def _stream(self, path: bytes, exchange: Exchange) -> None:
        """Streams stay open for hours, and work for moments: they have a bound of their own."""
        load = self.load
        if load.streams >= MAX_STREAMS:
            await self._turn_away(exchange)
            return
        load.streams += 1
        task, streams = asyncio.current_task(), self.under_way.streams
        streams.add(task)  # type: ignore[arg-type]  # an application runs in a task
        try:
            await self._mcp(path[5:].decode("latin-1"), exchange)
        except asyncio.CancelledError:
            await self._goodbye(exchange)
            if exchange.started:
                await exchange.end()  # nothing was promised in it: to end is not to break off
        finally:
            streams.discard(task)
            load.streams -= 1
            if exchange.held_bytes:
                load.let_go(exchange.held_bytes)

    async def _goodbye(self, exchange: Exchange) -> None:
        """An exchange that was cancelled: by the stop, then nobody is left without an answer, or by who knows whom."""
        if not self.under_way.stopping:
            raise asyncio.CancelledError
        if not exchange.started:
            await exchange.respond(503, _SHED_HEADERS, _SHED_BODY)

    async def _turn_away(self, exchange: Exchange) -> None:
        self._shed()
        await exchange.respond(503, _SHED_HEADERS, _SHED_BODY)

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
