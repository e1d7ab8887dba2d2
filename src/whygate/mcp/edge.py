"""MCP servers at ``/mcp/{server}``: streamable HTTP, transparent but for the decisions.

Rules of this file:

1. Whatever is wrong with a request becomes a fault, and ``gate.admit`` refuses it: one record for each refusal.
2. A call goes upstream only from an admission that allows it, as the bytes that were evaluated (``splices``).
3. Methods that are not decided pass untouched, for authenticated and active principals only.
4. Anything unforeseen is a recorded refusal, or, if even that fails, a bare error: it never opens a door.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from whygate.core.calls import Fault, Tool, ToolCall
from whygate.core.identity import ANONYMOUS, Principal, Status
from whygate.core.reasons import Code
from whygate.flow.ports import Admission, Completion, Gate, Identifier
from whygate.mcp import refusals
from whygate.mcp.backend import Answered, Backend, Catalogue, HttpBackend, Outgoing, Refused, Server
from whygate.mcp.envelope import (
    DECIDED,
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    REFUSED,
    Envelope,
    Heads,
    Wrong,
    duplicated,
    hints,
    read,
)
from whygate.mcp.frames import FrameTooLarge, event
from whygate.mcp.passing import Passing
from whygate.mcp.relay import Open, Stream, tell
from whygate.mcp.sessions import Bindings
from whygate.mcp.splices import upward as spliced
from whygate.mcp.stdio import StdioBackend
from whygate.mcp.watch import Watch
from whygate.transport.asgi import JSON, BodyTooLarge, BodyTooSlow, ClientGone, Exchange
from whygate.transport.aside import aside
from whygate.transport.callers import identify
from whygate.transport.headers import downward, upward
from whygate.transport.origin import Origins
from whygate.transport.readings import second_reading
from whygate.transport.refusals import answer_headers
from whygate.transport.upstream import UpstreamError, Upstreams

BODY_CAP_BYTES: Final = 4 * 1024 * 1024
"""What the Python SDK's server takes by default; a larger call is a file transfer in disguise."""
RESULT_CAP_BYTES: Final = 16 * 1024 * 1024
EVENTS: Final = "text/event-stream"
_METHODS: Final = frozenset(("POST", "GET", "DELETE"))

_log = logging.getLogger("whygate.mcp")


Forward = Callable[["Turn", Open, Watch], Awaitable[None]]
"""Takes an admitted call to its server and answers the client. Raises ``UpstreamError``, ``FrameTooLarge``, ``Refused``."""


class Turn:
    """One exchange: what is known of it so far."""

    __slots__ = (
        *("admitted", "asked", "body", "envelope", "exchange", "heads", "merged", "principal", "server", "wrong"),
    )

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.heads = Heads(exchange.headers)
        self.principal: Principal = ANONYMOUS
        self.server = ""
        """Empty until it is known that there is such a server, and that the caller may know."""
        self.merged = False
        """It came by the address of all servers."""
        self.asked = ""
        """What was asked for there, where no such server is."""
        self.envelope = Envelope()
        self.wrong: Wrong | None = None
        self.admitted = False
        self.body = b""


class McpEdge:
    """Routes agents' MCP traffic to MCP servers."""

    def __init__(
        self,
        servers: Mapping[str, Server],
        identifier: Identifier,
        gate: Gate,
        catalogue: Catalogue,
        *,
        origins: Origins,
        resource_metadata: str,
    ) -> None:
        self._identifier = identifier
        self._gate = gate
        self._catalogue = catalogue
        self._origins = origins
        self._resource_metadata = resource_metadata
        self._servers = dict(servers)
        self._backends: dict[str, Backend] = {}
        self._pools: dict[float, Upstreams] = {}
        self._bindings = Bindings()
        self._passing = Passing(gate, self._bindings)

    async def start(self) -> None:
        """Open the pools of connections. Processes start when somebody needs them."""
        for name, server in self._servers.items():
            if server.url:
                pool = self._pools.get(server.read_timeout_s)
                if pool is None:
                    pool = self._pools[server.read_timeout_s] = Upstreams(read_timeout_s=server.read_timeout_s)
                self._backends[name] = HttpBackend(server, pool)
            else:
                self._backends[name] = StdioBackend(server)

    async def close(self) -> None:
        """Stop every process and close every connection. Calls in flight fail, and are completed as failed."""
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))
        self._passing.close()
        for pool in self._pools.values():
            await pool.close()

    async def __call__(self, server_name: str, exchange: Exchange) -> None:
        turn = Turn(exchange)
        try:
            await self._serve(server_name, turn)
        except ClientGone:
            return
        except Exception:  # noqa: BLE001  # rule 4: nothing of it reaches the caller
            _log.exception("an exchange failed in an unforeseen way")
            await self._unforeseen(turn)

    async def _unforeseen(self, turn: Turn) -> None:
        if turn.exchange.started:
            await turn.exchange.end()
            return
        if not turn.admitted:
            turn.wrong = Wrong(Code.INTERNAL_ERROR, "", rpc=INTERNAL_ERROR)
            try:
                await self._refuse(turn)
            except Exception:  # noqa: BLE001  # the last line of defence
                _log.exception("not even the refusal could be given")
            else:
                return
        reply = refusals.internal()
        await turn.exchange.respond(reply.status, reply.headers, reply.body)

    async def _serve(self, server_name: str, turn: Turn) -> None:
        turn.wrong = await self._read(server_name, turn)
        if turn.wrong is not None:
            await self._refuse(turn)
        elif turn.envelope.method in DECIDED:
            await self._decide(turn, self._forward)
        elif turn.principal.status is not Status.ACTIVE:
            # Not a decided method; but whoever is suspended gets nothing through, and the gates are `decide`'s.
            await self._refuse(turn)
        else:
            await self._pass(turn)

    async def _read(self, server_name: str, turn: Turn) -> Wrong | None:
        """What is wrong with the request; what is known of it goes into ``turn``."""
        exchange, heads = turn.exchange, turn.heads
        fault = self._origins.check(exchange)
        if fault is not None:
            return Wrong(fault.code, fault.note, rpc=REFUSED)
        found = await identify(self._identifier, exchange.values(b"authorization"))
        if isinstance(found, Fault):
            await exchange.discard()
            return Wrong(found.code, found.note, rpc=REFUSED)
        turn.principal = found
        try:
            turn.body = await exchange.body(BODY_CAP_BYTES)
        except BodyTooLarge:
            return Wrong(Code.REQUEST_TOO_LARGE, f"the cap is {BODY_CAP_BYTES} bytes")
        except BodyTooSlow:
            return Wrong(Code.REQUEST_MALFORMED, "the body did not come in time")
        if not self._known(server_name):
            return Wrong(Code.REQUEST_SERVER_UNKNOWN, "no MCP server of this name", rpc=REFUSED)
        turn.server = server_name
        if exchange.method not in _METHODS:
            return Wrong(Code.REQUEST_METHOD_UNKNOWN, "not a method of MCP's transport", rpc=METHOD_NOT_FOUND)
        if (doubt := second_reading(exchange, json_only=exchange.method == "POST")) is not None:
            return Wrong(doubt.code, doubt.note)
        if exchange.method != "POST":
            if turn.body:
                # Nobody decides on it; a server that does not look at the method would act on it.
                return Wrong(Code.REQUEST_MALFORMED, f"a body with {exchange.method}")
            return duplicated(heads)
        turn.envelope = await aside(len(turn.body), read, turn.body, heads)
        return turn.envelope.wrong

    def _known(self, server_name: str) -> bool:
        return server_name in self._servers

    def _call(self, turn: Turn) -> ToolCall:
        envelope, params = turn.envelope, turn.envelope.params
        tool: Tool | None = None
        asked = ""
        args: dict[str, Any] = {}
        if envelope.method == "tools/call" and turn.server and isinstance(params.get("name"), str):
            tool = self._catalogue.find(turn.server, params["name"])
            asked = params["name"][:128] if tool is None else ""
            arguments = params.get("arguments")
            args = arguments if isinstance(arguments, dict) else {}
        wrong = turn.wrong
        return ToolCall(
            protocol="mcp",
            method=envelope.method_for_record
            or (turn.exchange.method if turn.exchange.method in _METHODS else "_other"),
            server=turn.server,
            tool=tool,
            asked=asked,
            args=args,
            principal=turn.principal,
            client=turn.exchange.client,
            public=envelope.method != "tools/call",
            faults=() if wrong is None else (Fault(code=wrong.code, note=wrong.note),),
            hints=hints(envelope, turn.heads),
            version=envelope.version,
            request_id=envelope.id_text,
        )

    async def _refuse(self, turn: Turn) -> None:
        """Have the refusal decided and recorded, and answer with it."""
        admission = await self._admit(turn)
        if admission.allowed:
            # `decide` refuses every fault and every inactive principal; if it did not, the door stays shut anyway.
            self._gate.complete(admission, Completion(is_error=True, error="not_forwarded", code=Code.UPSTREAM_FAILED))
            raise RuntimeError("a call with a fault was admitted")
        await self._answer(turn, admission)

    async def _admit(self, turn: Turn) -> Admission:
        turn.admitted = True
        return await self._gate.admit(self._call(turn))

    async def _answer(self, turn: Turn, admission: Admission) -> None:
        metadata = self._resource_metadata.replace("{server}", turn.server)
        reply = refusals.refusal(admission, turn.envelope, turn.wrong, metadata)
        await turn.exchange.respond(reply.status, reply.headers, reply.body)

    def _outgoing(self, turn: Turn, body: bytes, traceparent: str) -> Outgoing:
        exchange, heads = turn.exchange, turn.heads
        injected = self._servers[turn.server].headers
        if traceparent:
            injected = (*injected, ("traceparent", traceparent))
        return Outgoing(
            http_method=exchange.method,
            headers=upward(exchange.headers, injected),
            body=body,
            envelope=turn.envelope,
            principal=turn.principal,
            session=heads.text(b"mcp-session-id"),
            takes_events=EVENTS in heads.text(b"accept"),
        )

    async def _pass(self, turn: Turn) -> None:
        out = self._outgoing(turn, turn.body, "")
        try:
            await self._passing.through(turn.exchange, turn.server, self._backends[turn.server], out)
        except Refused as refused:
            turn.wrong = Wrong(refused.code, refused.note, rpc=REFUSED)
            await self._refuse(turn)

    async def _decide(self, turn: Turn, forward: Forward) -> None:
        admission = await self._admit(turn)
        if not admission.allowed:
            await self._answer(turn, admission)
            return
        opened = Open(self._gate, self._catalogue, admission, turn.envelope)
        watch = Watch(turn.exchange, cancels=turn.envelope.modern)
        try:
            await forward(turn, opened, watch)
        except UpstreamError as error:
            await self._failed(turn, opened, error.code, sent=error.sent)
        except FrameTooLarge:
            await self._failed(turn, opened, Code.RESULT_TOO_LARGE)
        except Refused as refused:
            _log.warning("%s: %s", turn.server, refused)
            await self._failed(turn, opened, Code.UPSTREAM_FAILED, sent=False)
        except asyncio.CancelledError:
            if watch.left:
                opened.finish(Completion(status=opened.status, is_error=True, error="client_gone"))
            elif not opened.cancelled:
                await self._failed(turn, opened, Code.OUTCOME_UNKNOWN, "stopped")
            if not watch.took():
                raise
        finally:
            watch.close()
            if not opened.held:
                opened.finish(
                    Completion(status=opened.status, is_error=True, error="internal", code=Code.UPSTREAM_FAILED)
                )

    async def _failed(self, turn: Turn, opened: Open, code: Code, error: str = "", *, sent: bool = True) -> None:
        answer = answer_headers(opened.admission.answer)
        if opened.done and turn.exchange.started:
            await turn.exchange.end()  # the response was passed on before the stream broke off
            return
        await tell(turn.exchange, 200, [JSON, *answer], opened.fail(code, error, sent=sent))

    async def _forward(self, turn: Turn, opened: Open, watch: Watch) -> None:
        exchange, admission = turn.exchange, opened.admission
        out = self._outgoing(turn, spliced(turn.envelope, admission.traceparent), admission.traceparent)
        if not self._bindings.usable(turn.server, out.session, out.principal):
            body = refusals.dead_session(turn.envelope)
            status, passed, _ = opened.whole(404, body)
            await exchange.respond(status, [JSON, *answer_headers(admission.answer)], passed)
            return
        async with self._backends[turn.server].send(out) as answer:
            opened.status = answer.status
            if answer.media_type == EVENTS:
                await self._stream(turn, opened, answer, watch)
                return
            body = await answer.read(RESULT_CAP_BYTES)
            status, passed, own = opened.whole(answer.status, body)
            headers = downward(answer.headers) if own else [JSON]
            headers += answer_headers(admission.answer)
        await exchange.respond(status, headers, passed)

    async def _stream(self, turn: Turn, opened: Open, answer: Answered, watch: Watch) -> None:
        exchange = turn.exchange
        headers = downward(answer.headers)
        headers += answer_headers(opened.admission.answer)
        await exchange.start(answer.status, headers)
        stream = Stream(opened, RESULT_CAP_BYTES)
        async for chunk in answer.chunks():
            passed = stream.feed(chunk)
            if passed:
                await exchange.send(passed)
            if watch.unheard(len(chunk)):
                opened.finish(Completion(status=opened.status, is_error=True, error="client_gone"))
                return
        passed = stream.end()
        if not opened.done:
            if stream.resumable and not turn.envelope.modern:
                # 2025-11-25: a server may close the stream and answer when the client comes back for the rest.
                self._passing.awaits(opened, turn.heads.text(b"mcp-session-id"))
            else:
                passed += event(opened.fail(Code.UPSTREAM_FAILED))
        if passed:
            await exchange.send(passed)
        await exchange.end()
