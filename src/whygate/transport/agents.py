"""The agents' listener: which edge a path belongs to. Raw ASGI, because every call passes here."""

from collections.abc import Awaitable, Callable

from whygate.transport.asgi import Exchange, Receive, Scope, Send

McpHandler = Callable[[str, Exchange], Awaitable[None]]
HttpHandler = Callable[[str, bytes, Exchange], Awaitable[None]]


class AgentsApp:
    """``/mcp/{server}`` and ``/http/{tool}/…``. Every other path goes to the HTTP edge as a tool that does not exist, so
    that it is refused, recorded and explained like everything else.
    """

    def __init__(self, mcp: McpHandler, http: HttpHandler) -> None:
        self._mcp = mcp
        self._http = http

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
        await self._http("", b"/", exchange)
