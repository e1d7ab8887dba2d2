"""MCP servers at ``/mcp/{server}``: streamable HTTP, transparent but for the decisions.

Rules of this file:

1. Whatever is wrong with a request becomes a fault, and ``gate.admit`` refuses it: one record for each refusal.
2. A call goes upstream only from an admission that allows it, as the bytes that were evaluated (``splices``).
3. Nothing passes undecided: ``methods`` says how each method is decided, and what it does not name is refused.
4. Anything unforeseen is a recorded refusal, or, if even that fails, a bare error: it never opens a door.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from whygate.core.calls import Fault, ToolCall
from whygate.core.reasons import Code
from whygate.flow.ports import Admission, Completion, Gate, Identifier
from whygate.mcp import refusals
from whygate.mcp.backend import Backend, Catalogue, HttpBackend, Refused, Server
from whygate.mcp.crowd import Crowd
from whygate.mcp.envelope import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    REFUSED,
    Wrong,
    duplicated,
    hints,
    read,
)
from whygate.mcp.forwarding import Forwarder
from whygate.mcp.frames import FrameTooLarge
from whygate.mcp.ladder import Ladder
from whygate.mcp.methods import LISTEN
from whygate.mcp.narrowing import narrow
from whygate.mcp.own_tools import OWN
from whygate.mcp.own_tools import tool as own_tool
from whygate.mcp.passing import Passing, is_light, said
from whygate.mcp.questions import Questions, Within
from whygate.mcp.relay import Open, tell
from whygate.mcp.results import Results
from whygate.mcp.sessions import Bindings
from whygate.mcp.stdio import StdioBackend
from whygate.mcp.targets import OPEN, Target, Targets
from whygate.mcp.turns import METHODS, Turn, without_method
from whygate.mcp.watch import Watch
from whygate.transport.asgi import JSON, BodyTooLarge, BodyTooSlow, ClientGone, Exchange
from whygate.transport.aside import aside
from whygate.transport.callers import identify
from whygate.transport.origin import Origins
from whygate.transport.readings import second_reading
from whygate.transport.refusals import answer_headers
from whygate.transport.upstream import UpstreamError, Upstreams

BODY_CAP_BYTES: Final = 4 * 1024 * 1024
"""What the Python SDK's server takes by default; a larger call is a file transfer in disguise."""
_NONE: Final[dict[str, Any]] = {}
_STATED: Final = ("inputResponses", "requestState")

_log = logging.getLogger("whygate.mcp")


Forward = Callable[[Turn, Open, Watch], Awaitable[None]]
"""Takes an admitted call to its server and answers the client. Raises ``UpstreamError``, ``FrameTooLarge``, ``Refused``."""


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
        self._own: Backend | None = None
        self._backends: dict[str, Backend] = {}
        self._pools: dict[float, Upstreams] = {}
        self._bindings = Bindings()
        self.crowd = Crowd()
        self._targets = Targets(gate.digest)
        self._results = Results(gate, catalogue, self._targets)
        self._questions = Questions(gate)
        self._passing = Passing(gate, self._bindings, self._results)
        self._forwarder = Forwarder(self._servers, self._backends, self._bindings, self._questions, self._passing)
        self._ladder = Ladder(gate, self._capabilities, self.crowd)

    def offer(self, own: Backend) -> None:
        """Have the gateway's own tools offered. Before the start."""
        self._own = own
        self._servers[OWN] = Server(name=OWN, url="whygate:own")

    async def start(self) -> None:
        """Open the pools of connections. Processes start when somebody needs them."""
        for name, server in self._servers.items():
            if name == OWN and self._own is not None:
                self._backends[name] = self._own
            elif server.url:
                pool = self._pools.get(server.read_timeout_s)
                if pool is None:
                    pool = self._pools[server.read_timeout_s] = Upstreams(read_timeout_s=server.read_timeout_s)
                self._backends[name] = HttpBackend(server, pool)
            else:
                self._backends[name] = StdioBackend(server)

    async def close(self) -> None:
        """Stop every process and close every connection. Calls in flight fail, and are completed as failed."""
        await self._questions.close()
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
        wrong = await self._read(server_name, turn)
        envelope = turn.envelope
        if wrong is None and not envelope.params.keys().isdisjoint(_STATED):
            wrong = self._opened_state(turn)
        turn.wrong = wrong
        with self.crowd.of(turn.principal):
            await self._go_on(turn)

    async def _go_on(self, turn: Turn) -> None:
        envelope = turn.envelope
        if turn.wrong is not None:
            await self._refuse(turn)
        elif envelope.method == "tools/call" or (envelope.id is not None and not is_light(envelope)):
            await self._decide(turn, self._forwarder.forward)
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
        if exchange.method not in METHODS:
            return Wrong(Code.REQUEST_METHOD_UNKNOWN, "not a method of MCP's transport", rpc=METHOD_NOT_FOUND)
        if (doubt := second_reading(exchange, json_only=exchange.method == "POST")) is not None:
            return Wrong(doubt.code, doubt.note)
        if exchange.method != "POST":
            if turn.body:
                # Nobody decides on it; a server that does not look at the method would act on it.
                return Wrong(Code.REQUEST_MALFORMED, f"a body with {exchange.method}")
            return duplicated(heads)
        envelope = turn.envelope = await aside(len(turn.body), read, turn.body, heads)
        return envelope.wrong

    def _opened_state(self, turn: Turn) -> Wrong | None:
        """Put the server's own ``requestState`` in the place of the sealed one, where there is one; what is wrong with it."""
        if (wrong := self._ladder.take_up(turn)) is not None:
            return wrong
        turn.carried = turn.envelope.params.get("requestState")
        if "requestState" not in turn.envelope.params:
            return None
        return self._targets.open_state(turn.server, turn.principal, turn.envelope)

    def _known(self, server_name: str) -> bool:
        return server_name in self._servers

    def _call(self, turn: Turn, target: Target) -> ToolCall:
        """``target`` is what is asked for where that is no tool."""
        envelope, params = turn.envelope, turn.envelope.params
        tool, args, public, fault, asked = target
        if envelope.method == "tools/call":
            public, name = turn.server == OWN, params.get("name")
            if turn.server and isinstance(name, str):
                tool = own_tool(name) if public else self._catalogue.find(turn.server, name)
                asked = name[:128] if tool is None else ""
                arguments = params.get("arguments")
                args = arguments if isinstance(arguments, dict) else {}
        if (wrong := turn.wrong) is not None:
            fault = Fault(code=wrong.code, note=wrong.note)
        return ToolCall(
            protocol="mcp",
            method=envelope.method_for_record or without_method(turn),
            server=turn.server,
            tool=tool,
            asked=asked,
            args=args,
            answers=turn.answers or params.get("inputResponses", _NONE) if wrong is None else _NONE,
            principal=turn.principal,
            client=turn.exchange.client,
            public=public,
            faults=() if fault is None else (fault,),
            hints=hints(envelope, turn.heads),
            presented=turn.presented,
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
        if turn.wrong is not None or turn.envelope.method == "tools/call":
            return await self._gate.admit(self._call(turn, OPEN))
        # One call, but for a subscription to several things.
        *others, last = self._targets.of(turn.server, turn.principal, turn.envelope)
        allowed = False
        try:
            for each in others:
                admission = await self._gate.admit(self._call(turn, each))
                if not admission.allowed:
                    return admission
                turn.besides += (admission,)
            admission = await self._gate.admit(self._call(turn, last))
            allowed = admission.allowed
            return admission
        finally:
            if not allowed:  # one thing was refused, or the caller has left: nothing of the request is sent
                for beside in turn.besides:
                    self._gate.complete(beside, Completion(is_error=True, error="not_forwarded"))

    async def _answer(self, turn: Turn, admission: Admission) -> None:
        metadata = self._resource_metadata.replace("{server}", turn.server)
        reply = refusals.refusal(admission, turn.envelope, turn.wrong, metadata)
        await tell(turn.exchange, reply.status, reply.headers, reply.body)

    def _capabilities(self, turn: Turn) -> Mapping[str, Any]:
        """What the client of a legacy session said that it can do."""
        return self._bindings.capabilities(turn.server, turn.heads.text(b"mcp-session-id"), turn.principal)

    async def _pass(self, turn: Turn) -> None:
        """Pings and notifications, which are recorded only where they are refused; streams, goodbyes, and answers."""
        if not turn.envelope.method and self._ladder.heard(turn):
            await self._heard_ours(turn)
            return
        call = self._call(turn, OPEN)
        if not turn.envelope.method:
            call = msgspec.structs.replace(call, args=said(turn.envelope))
        light = is_light(turn.envelope)
        turn.admitted = True
        admission = await (self._gate.glance(call) if light else self._gate.admit(call))
        if admission is not None and not admission.allowed:
            await self._answer(turn, admission)
            return
        out = self._forwarder.outgoing(turn, turn.body, "")
        try:
            within = Within(self._questions, call, self._backends[turn.server], out)
            await self._passing.through(turn.exchange, within, admission)
        except Refused as refused:
            turn.wrong = Wrong(refused.code, refused.note, rpc=REFUSED)
            await self._refuse(turn)

    async def _heard_ours(self, turn: Turn) -> None:
        """The client answered what we asked ourselves: recorded, and passed on to nobody."""
        turn.admitted = True
        call = msgspec.structs.replace(self._call(turn, OPEN), args=said(turn.envelope))
        admission = await self._gate.admit(call)
        if not admission.allowed:
            await self._answer(turn, admission)
            return
        self._gate.complete(admission, Completion(status=202))
        await turn.exchange.respond(202, answer_headers(admission.answer), b"")

    async def _admitted(self, turn: Turn) -> Admission | None:
        """The admission to go on with; ``None`` where the client has its answer: refused, or asked for a person's leave."""
        admission: Admission | None = await self._admit(turn)
        if admission is not None and admission.approval is not None:
            admission = await self._ladder.climb(turn, admission, lambda: self._admit(turn))
        if admission is None:
            return None
        if not admission.allowed:
            await self._answer(turn, admission)
            return None
        if admission.before is not None:
            narrow(turn, admission.call.args, self._catalogue.schema(admission.call.tool))
        return admission

    async def _decide(self, turn: Turn, forward: Forward) -> None:
        admission = await self._admitted(turn)
        if admission is None:
            return
        opened = Open(self._gate, self._results, admission, turn.envelope)
        opened.besides = turn.besides
        watch = Watch(turn.exchange, cancels=turn.envelope.modern)
        try:
            await forward(turn, opened, watch)
        except UpstreamError as error:
            await self._failed(turn, opened, error.code, sent=error.sent)
        except FrameTooLarge:
            await self._failed(turn, opened, Code.RESULT_TOO_LARGE)
        except Refused as refused:
            await self._no_room(turn, opened, refused)
        except asyncio.CancelledError:
            if watch.left:
                opened.finish(Completion(status=opened.status, is_error=True, error="client_gone"))
            elif not opened.cancelled:
                await self._stopped(turn, opened)
            if not watch.took():
                raise
        finally:
            watch.close()
            if not opened.held:
                opened.finish(
                    Completion(status=opened.status, is_error=True, error="internal", code=Code.UPSTREAM_FAILED)
                )

    async def _no_room(self, turn: Turn, opened: Open, refused: Refused) -> None:
        _log.warning("%s: %s", turn.server, refused)
        if turn.envelope.method == "tools/call":
            await self._failed(turn, opened, Code.UPSTREAM_FAILED, sent=False)
            return
        opened.finish(Completion(is_error=True, error="not_forwarded"))
        turn.wrong = Wrong(refused.code, refused.note, rpc=REFUSED)
        await self._refuse(turn)

    async def _stopped(self, turn: Turn, opened: Open) -> None:
        if turn.envelope.method != LISTEN:
            await self._failed(turn, opened, Code.OUTCOME_UNKNOWN, "stopped")
            return
        # News had no outcome that could be unknown.
        opened.finish(Completion(status=opened.status, is_error=True, error="stopped"))
        if turn.exchange.started:
            await turn.exchange.end()

    async def _failed(self, turn: Turn, opened: Open, code: Code, error: str = "", *, sent: bool = True) -> None:
        answer = answer_headers(opened.admission.answer)
        if opened.done and turn.exchange.started:
            await turn.exchange.end()  # the response was passed on before the stream broke off
            return
        await tell(turn.exchange, 200, [JSON, *answer], opened.fail(code, error, sent=sent))
