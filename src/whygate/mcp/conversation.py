"""A conversation of the gateway, as the client, with one MCP server: in the server's own era, over HTTP or stdio.

Rules of this file:

1. The server's era is found out, never configured: the wanted one is tried first, with ``server/discover`` or
   ``initialize``, then the other (2026-07-28, basic/lifecycle, "Backward Compatibility"). Which of the two a server of this
   name speaks is remembered (``eras``), because a stdio process takes messages of the first era that it hears, and no other.
2. Ids and progress tokens are the conversation's own, so that the requests of many clients can share it.
3. Everything is bounded: the time to find out the era, the pages and bytes of a list, the times a stream is taken up.
4. A legacy session that the server has lost is opened anew, once per request. It says so with 404 (2025-11-25,
   basic/transports, "Session Management"); some say 400. Neither has acted.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import msgspec

from whygate import __version__
from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.mcp import splices, told
from whygate.mcp.asked import CAP_BYTES, Asked
from whygate.mcp.backend import Answered, Backend, Outgoing, Refused, Server
from whygate.mcp.envelope import (
    CAPABILITIES_KEY,
    METHOD_NOT_FOUND,
    MODERN,
    VERSION_KEY,
    Envelope,
)
from whygate.mcp.mirrors import Mirrors, encoded
from whygate.mcp.told import Listing, failed
from whygate.transport.upstream import UpstreamError

PROTOCOL: Final = "io.modelcontextprotocol/"
CLIENT_KEY: Final = f"{PROTOCOL}clientInfo"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Revisions with a handshake that we speak, newest first; the oldest differs in nothing that tools need."""
OURSELVES: Final = msgspec.Raw(msgspec.json.encode({"name": "whygate", "version": __version__}))
PROBE_S: Final = 10.0
"""To find out the era. A server that never answers what it does not know is taken for a legacy one after that; the slowest
of the usual ones need 2.4 s to start."""
PAGES: Final = 100
TOOLS: Final = 2_000
"""Of one server: none that is honest has more."""
_END_S: Final = 5.0
_NOTHING: Final[Mapping[str, Any]] = {}
_GONE: Final = frozenset((400, 404))

Eras = dict[tuple[str, bool], bool]
"""By server's name and era (modern or not), whether it speaks it."""

_encode: Final = msgspec.json.Encoder().encode
_log = logging.getLogger("whygate.mcp")


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who stands behind us in a conversation."""

    capabilities: msgspec.Raw = msgspec.Raw(b"{}")
    """What a server may ask of it (an object)."""
    info: msgspec.Raw = OURSELVES
    """Who it says it is (an object)."""
    modern: bool = True
    """Its era, which is tried first."""


NOBODY: Final = Client()


class Conversation:
    """One principal's conversation with one server. Begins with the first request; end it with ``close``."""

    def __init__(
        self,
        server: Server,
        backend: Backend,
        principal: Principal,
        *,
        eras: Eras | None = None,
        client: Client = NOBODY,
    ) -> None:
        """``eras``: what is known already, shared by all conversations."""
        self._server = server
        self._backend = backend
        self._principal = principal
        self._eras: Eras = {} if eras is None else eras
        self._client = client
        self._ids = itertools.count(1)
        self._lock = asyncio.Lock()
        self._telling: set[asyncio.Task[None]] = set()
        self._started = False
        self._session = ""
        self._version = ""
        self._has_tools = False
        self.modern = False
        """The server's era; known once a request was made."""
        self.mirrors = Mirrors()
        self.listed = False
        """Whether ``mirrors`` is what the server's list says."""

    async def start(self) -> None:
        """Find out the era, and open a session where there are sessions; at once where that is done. Raises
        ``UpstreamError``, and ``backend.Refused``.
        """
        if self._started:
            return
        async with self._lock:
            if not self._started:
                await self._begin()

    async def close(self) -> None:
        """End the session, if there is one. Never raises, and takes some seconds at the most."""
        if self._telling:
            await asyncio.wait(self._telling)
        session, self._session, self._started = self._session, "", False
        if not session:
            return
        with contextlib.suppress(UpstreamError, Refused, TimeoutError):
            async with asyncio.timeout(_END_S):
                out = self._outgoing("DELETE", b"", Envelope(), session)
                async with self._backend.send(out):
                    pass

    async def list_tools(self, traceparent: str = "") -> Listing:
        """All pages of the server's tools. Raises ``UpstreamError`` where they can't be had whole, and ``Refused``."""
        trace: dict[str, Any] = {"_meta": {"traceparent": traceparent}} if traceparent else {}
        tools: list[bytes] = []
        ttl_ms, size, cursor, seen, public = None, 0, "", set(), True
        for number in range(PAGES):
            raw = await self.request("tools/list", trace | ({"cursor": cursor} if cursor else {}))
            if raw is None:
                if self._has_tools:
                    raise failed("has no list of tools, though it says so")
                return Listing(tools=[])
            page = told.page(raw)
            self.mirrors.learn(raw, first=number == 0)
            size += len(bytes(raw))
            tools += map(bytes, page.tools)
            if size > CAP_BYTES or len(tools) > TOOLS:
                raise UpstreamError(Code.RESULT_TOO_LARGE, "the list of tools is too long")
            ttl_ms = int(page.ttl_ms) if ttl_ms is None else min(ttl_ms, int(page.ttl_ms))
            public = public and page.scope == "public"
            if not page.cursor:
                self.listed = True
                return Listing(tools=tools, ttl_ms=max(ttl_ms, 0), public=public)
            cursor = page.cursor
            if cursor in seen:
                raise failed("its list of tools goes round in circles")
            seen.add(cursor)
        raise UpstreamError(Code.RESULT_TOO_LARGE, "the list of tools has too many pages")

    async def request(self, method: str, params: Mapping[str, Any]) -> msgspec.Raw | None:
        """The result of a request that needs no client behind us; ``None`` where the server does not know the method.
        What the server asks meanwhile is declined. Raises ``UpstreamError``, also for an error of the protocol.
        """
        async with self.ask(method, params) as asked:
            async for message, _ in asked.messages():
                if message.method:
                    if message.id is not None:
                        await self.decline(message)
                elif message.result:
                    return message.result
                else:
                    code = splices.error_code(message.error)
                    if code == str(METHOD_NOT_FOUND):
                        return None
                    raise failed(f"answered {method} with the error {code}")
        raise failed("did not answer")

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        args: Mapping[str, Any] = _NOTHING,
        headers: tuple[tuple[str, str], ...] = (),
        token: int | str | None = None,
    ) -> AsyncIterator[Asked]:
        """Send a request, whose ``params`` may hold raw JSON; leaving the block before it is answered gives it up, which
        in the modern era cancels it. ``args``: a call's arguments, read; ``token``: the client's progress token. Raises
        ``UpstreamError``, and ``Refused`` before anything was sent.
        """
        for again in (True, False):
            await self.start()
            session, identity = self._session, next(self._ids)
            out = self._request(method, params, args, headers, None if token is None else identity, identity)
            try:
                async with self._backend.send(out) as answer:
                    if again and session and answer.status in _GONE:
                        if self._session == session:
                            self._session, self._started = "", False
                        continue
                    if self.modern and answer.status >= 400:
                        self._started = False  # the server behind this name may have become another: ask it again
                    yield Asked(answer, identity, token, None if self.modern else self._again)
                    return
            except asyncio.CancelledError:
                self._give_up(identity)
                raise
            except UpstreamError as error:
                if error.code is Code.UPSTREAM_TIMEOUT:
                    self._give_up(identity)
                raise

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send a notification or a response. To a modern server there is nothing to tell: nothing is sent. Raises
        ``UpstreamError``.
        """
        if self._started and not self.modern:
            await self._tell(message)

    async def _tell(self, message: Mapping[str, Any]) -> None:
        body = _encode({"jsonrpc": "2.0"} | dict(message))
        made = Envelope()
        made.method, made.params = message.get("method", ""), message.get("params", {})
        async with self._backend.send(self._outgoing("POST", body, made, self._session)):
            pass

    async def decline(self, question: splices.Message) -> None:
        """Answer a server's question that nobody here can answer; ``ping`` we can."""
        if question.method == "ping":
            await self.tell({"id": question.id, "result": {}})
        else:
            error = {"code": METHOD_NOT_FOUND, "message": "the client behind this gateway can't be asked that"}
            await self.tell({"id": question.id, "error": error})

    def _give_up(self, identity: int) -> None:
        """Tell a legacy server that nobody waits for the request any more (2025-11-25, basic/utilities/cancellation). To a
        modern one the closed connection says so.
        """
        if not self.modern:
            task = asyncio.get_running_loop().create_task(self._cancel(identity))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _cancel(self, identity: int) -> None:
        with contextlib.suppress(UpstreamError, Refused, TimeoutError):
            async with asyncio.timeout(_END_S):
                params = {"requestId": identity, "reason": "nobody waits for it any more"}
                await self.tell({"method": "notifications/cancelled", "params": params})

    async def _begin(self) -> None:
        name = self._server.name
        for modern in (self._client.modern, not self._client.modern):
            if self._eras.get((name, modern)) is False:
                continue
            self.modern, self._session, self._version = modern, "", ""
            if await (self._discover() if modern else self._initialize()):
                self._eras[name, modern] = self._started = True
                return
        # What is behind the name may have changed: the next conversation asks for both again.
        for modern in (True, False):
            self._eras.pop((name, modern), None)
        raise failed("speaks no revision of the protocol that is known here")

    async def _discover(self) -> bool:
        """Whether the server speaks the modern era. Raises ``UpstreamError`` where that can't be found out."""
        certain = self._eras.get((self._server.name, True), False)
        try:
            async with asyncio.timeout(PROBE_S):
                message = await self._once("server/discover", {})
        except TimeoutError:
            if certain:
                raise UpstreamError(Code.UPSTREAM_TIMEOUT, "the tool did not answer in time") from None
            await self._backend.dismiss(self._principal)
            return False
        hello = told.hello(message.result) if message is not None and message.result else None
        if hello is not None and not set(MODERN).isdisjoint(hello.versions):
            self._version = MODERN[-1]
            self._has_tools = "tools" in hello.capabilities
            return True
        self._eras[self._server.name, True] = False
        await self._backend.dismiss(self._principal)
        return False

    async def _initialize(self) -> bool:
        """The handshake (2025-11-25, basic/lifecycle): whether the server knows it. Raises ``UpstreamError``."""
        params = {
            "protocolVersion": LEGACY[0],
            "capabilities": self._client.capabilities,
            "clientInfo": self._client.info,
        }
        message = await self._once("initialize", params)
        hello = told.hello(message.result) if message is not None and message.result else None
        if hello is None or hello.version not in LEGACY:
            self._eras[self._server.name, False] = False
            await self.close()
            return False
        self._version = hello.version
        self._has_tools = "tools" in hello.capabilities
        await self._tell({"method": "notifications/initialized"})
        return True

    async def _once(self, method: str, params: Mapping[str, Any]) -> splices.Message | None:
        """The response to a request of the handshake; ``None`` where what came is none."""
        identity = next(self._ids)
        out = self._request(method, params, _NOTHING, (), None, identity)
        async with self._backend.send(out) as answer:
            if answer.status in (401, 407):
                raise failed("did not take the gateway's credential")
            if method == "initialize" and answer.status < 400:
                self._session = _session(answer)
            try:
                async for message, _ in Asked(answer, identity, None, None).messages():
                    if not message.method:
                        return message
            except UpstreamError as error:
                if answer.status < 400 or error.code is not Code.UPSTREAM_FAILED:
                    raise
        return None

    def _again(self, event_id: str) -> AbstractAsyncContextManager[Answered]:
        """Take up the stream after this event."""
        out = self._outgoing("GET", b"", Envelope(), self._session)
        out.headers.append(("last-event-id", event_id))
        return self._backend.send(out)

    def _request(
        self,
        method: str,
        params: Mapping[str, Any],
        args: Mapping[str, Any],
        headers: tuple[tuple[str, str], ...],
        token: int | None,
        identity: int,
    ) -> Outgoing:
        made = Envelope()
        made.method, made.id, made.modern, made.version = method, identity, self.modern, self._version
        meta = dict(params.get("_meta", _NOTHING))
        if self.modern:
            meta.setdefault(CAPABILITIES_KEY, self._client.capabilities)
            meta.setdefault(CLIENT_KEY, self._client.info)
            meta[VERSION_KEY] = MODERN[-1]
        meta.pop("progressToken", None)
        if token is not None:
            meta["progressToken"] = token
        whole = dict(params)
        if meta:
            whole["_meta"] = made.meta = meta
        made.params = whole | {"arguments": args} if args else whole
        body = _encode({"jsonrpc": "2.0", "id": identity, "method": method, "params": whole})
        out = self._outgoing("POST", body, made, "" if method == "initialize" else self._session)
        if self.modern:
            out.headers += [("mcp-protocol-version", MODERN[-1]), ("mcp-method", method)]
            if method == "tools/call":
                out.headers.append(("mcp-name", encoded(params["name"])))
        out.headers += headers
        if "traceparent" in meta:
            out.headers.append(("traceparent", _text(meta["traceparent"])))
        return out

    def _outgoing(self, http_method: str, body: bytes, envelope: Envelope, session: str) -> Outgoing:
        headers = [("accept", "application/json, text/event-stream")]
        if body:
            headers.append(("content-type", "application/json"))
        if session:
            headers.append(("mcp-session-id", session))
        if self._version and not self.modern:
            headers.append(("mcp-protocol-version", self._version))
        return Outgoing(
            http_method=http_method,
            headers=[*headers, *self._server.headers],
            body=body,
            envelope=envelope,
            principal=self._principal,
            session=session,
            takes_events=True,
        )


def _text(value: str | msgspec.Raw) -> str:
    return value if isinstance(value, str) else msgspec.json.decode(value, type=str)


def _session(answer: Answered) -> str:
    return next((value for name, value in answer.headers if name.lower() == "mcp-session-id"), "")
