"""``/mcp``: the tools of all MCP servers under one address, named ``server__tool``. Here the gateway is the MCP server.

Rules of this file:

1. A call is decided, recorded and completed exactly as on ``/mcp/{server}``: by the time it is decided, its tool has its
   own name and server, and no policy can tell which address it came by.
2. One decision for one list, whatever the number of servers (``gathering``).
3. Sessions are ours here, bound to their principal; what servers open for a client hangs on its talk (``talks``).
4. What this address does not know is refused and recorded, as everywhere; what it answers itself is decided as everywhere.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import msgspec

from whygate.core.calls import ToolCall
from whygate.core.identity import Status
from whygate.core.reasons import Code
from whygate.flow.ports import Admission, Completion
from whygate.mcp import merging, refusals
from whygate.mcp.backend import Refused
from whygate.mcp.conversation import LEGACY, OURSELVES
from whygate.mcp.crossing import ROUNDS, Crossing, Down, Input
from whygate.mcp.edge import McpEdge
from whygate.mcp.envelope import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MODERN,
    REFUSED,
    Envelope,
    Wrong,
)
from whygate.mcp.forwarding import EVENTS
from whygate.mcp.gathering import Gathering
from whygate.mcp.passing import is_light, said
from whygate.mcp.relay import Open, tell
from whygate.mcp.talks import Running, Talk, Talks
from whygate.mcp.targets import OPEN, Target
from whygate.mcp.turns import Turn
from whygate.mcp.watch import Watch
from whygate.transport.asgi import JSON, Header
from whygate.transport.refusals import answer_headers
from whygate.transport.upstream import UpstreamError

ALL: Final = ""
"""The server's name in the path where there is none."""
_ALLOW: Final[Header] = (b"allow", b"POST, DELETE")
_SESSION: Final = b"mcp-session-id"
_encode: Final = msgspec.json.Encoder().encode
_log = logging.getLogger("whygate.mcp")


class MergedEdge(McpEdge):
    """The edge with the merged address beside those of the single servers."""

    async def start(self) -> None:
        await super().start()
        self._talks = Talks(self._servers, self._backends)
        self._gathering = Gathering(self._gate, self._catalogue, self._talks, self._servers)

    async def close(self) -> None:
        await self._talks.close()
        await super().close()

    def _known(self, server_name: str) -> bool:
        return server_name == ALL or super()._known(server_name)

    def _serve(self, server_name: str, turn: Turn) -> Coroutine[Any, Any, None]:
        return self._all(turn) if server_name == ALL else super()._serve(server_name, turn)

    async def _all(self, turn: Turn) -> None:
        turn.merged = True
        turn.wrong = await self._read(ALL, turn) or _version(turn)
        with self.crowd.of(turn.principal):
            await self._as_one(turn)

    async def _as_one(self, turn: Turn) -> None:
        method = turn.envelope.method
        if turn.wrong is not None or (turn.principal.status is not Status.ACTIVE and method != "tools/call"):
            await self._refuse(turn)
        elif turn.exchange.method == "POST" and not method and self._ladder.heard(turn):
            await self._heard_ours(turn)
        elif turn.exchange.method != "POST" or not method:
            await self._without_method(turn)
        elif method == "tools/call":
            await self._tool(turn)
        elif method == "tools/list":
            await self._list(turn)
        elif is_light(turn.envelope):
            await self._light(turn)
        else:
            await self._ours(turn)

    def _call(self, turn: Turn, target: Target) -> ToolCall:
        call = super()._call(turn, target)
        if not turn.asked:
            return call
        arguments = turn.envelope.params.get("arguments", {})
        tool = merging.nobodys(turn.asked)
        return msgspec.structs.replace(call, tool=tool, asked=turn.asked[:128], args=arguments)

    async def _answer(self, turn: Turn, admission: Admission) -> None:
        if not turn.merged:
            await super()._answer(turn, admission)
            return
        metadata = self._resource_metadata.removesuffix("/{server}")
        reply = refusals.refusal(admission, turn.envelope, turn.wrong, metadata)
        await tell(turn.exchange, reply.status, reply.headers, reply.body)

    def _capabilities(self, turn: Turn) -> Mapping[str, Any]:
        if not turn.merged:
            return super()._capabilities(turn)
        session = turn.heads.text(_SESSION)
        talk = self._talks.find(session, turn.principal) if session else None
        return {} if talk is None else talk.capabilities

    async def _refuse_as(self, turn: Turn, wrong: Wrong) -> None:
        turn.wrong = wrong
        await self._refuse(turn)

    def _talk(self, turn: Turn) -> Talk | None:
        """The talk that the request belongs to; ``None`` where its session is dead. Raises ``Refused``."""
        session = "" if turn.envelope.modern else turn.heads.text(_SESSION)
        return self._talks.find(session, turn.principal)

    # --- what the gateway answers itself ---

    async def _without_method(self, turn: Turn) -> None:
        """Goodbyes, answers to what servers asked, and the stream that there is not: everything comes on the stream of the
        call it is for.
        """
        call = self._call(turn, OPEN)
        if turn.exchange.method == "POST":
            if turn.envelope.modern:
                await self._refuse_as(turn, Wrong(Code.REQUEST_MALFORMED, "nobody asked", rpc=INVALID_REQUEST))
                return
            call = msgspec.structs.replace(call, args=said(turn.envelope))
        turn.admitted = True
        admission = await self._gate.admit(call)
        if not admission.allowed:
            await self._answer(turn, admission)
            return
        completion = Completion(is_error=True, error="internal", code=Code.UPSTREAM_FAILED)
        try:
            status = await (self._heard(turn) if turn.exchange.method == "POST" else self._no_post(turn))
            completion = Completion(status=status, is_error=status >= 400, error=str(status) if status >= 400 else "")
        finally:
            self._gate.complete(admission, completion)
        headers = answer_headers(admission.answer)
        if status == 404:
            await turn.exchange.respond(404, [JSON, *headers], refusals.dead_session(turn.envelope))
        else:
            await turn.exchange.respond(status, [_ALLOW, *headers] if status == 405 else headers, b"")

    async def _no_post(self, turn: Turn) -> int:
        """``DELETE`` ends a session. Returns the status to answer with."""
        session, modern = turn.heads.text(_SESSION), turn.heads.text(b"mcp-protocol-version") in MODERN
        if turn.exchange.method == "GET" or modern or not session:
            return 405
        talk = self._talks.find(session, turn.principal)
        if talk is None:
            return 404
        self._talks.end(talk)
        return 204

    async def _heard(self, turn: Turn) -> int:
        """An answer to what a server asked: accepted (202), whatever becomes of it. Returns the status to answer with."""
        parts, session = turn.envelope.parts, turn.heads.text(_SESSION)
        talk = self._talks.find(session, turn.principal) if session else None
        if talk is not None:
            identity = msgspec.json.decode(parts["id"]) if "id" in parts else None
            try:
                await talk.answered(identity, parts)
            except (UpstreamError, Refused) as error:
                _log.info("an answer did not reach the server that had asked: %s", error)
        return 404 if session and talk is None else 202

    async def _light(self, turn: Turn) -> None:
        """Pings and notifications, which are recorded only where they are refused."""
        envelope = turn.envelope
        if envelope.method == "ping" and envelope.modern:
            await self._none_of_ours(turn)
            return
        turn.admitted = True
        admission = await self._gate.glance(self._call(turn, OPEN))
        if admission is not None:
            await self._answer(turn, admission)
            return
        if envelope.method == "ping":
            await self._result(turn, {})
            return
        session = "" if envelope.modern else turn.heads.text(_SESSION)
        talk = self._talks.find(session, turn.principal) if session else None
        if session and talk is None:
            await turn.exchange.respond(404, [JSON], refusals.dead_session(envelope))
            return
        if talk is not None and envelope.method == "notifications/cancelled":
            identity = envelope.params.get("requestId")
            running = talk.running.get(identity) if isinstance(identity, int | str) else None
            if running is not None:
                running.cancel()
        await turn.exchange.respond(202, [], b"")

    async def _ours(self, turn: Turn) -> None:
        """Requests that the gateway answers as the server that it is here."""
        method, modern = turn.envelope.method, turn.envelope.modern
        if method == "server/discover" and modern:
            await self._decide(turn, self._discovered)
        elif method == "initialize" and not modern:
            await self._decide(turn, self._initialized)
        else:
            await self._none_of_ours(turn)

    async def _none_of_ours(self, turn: Turn) -> None:
        note = f"{turn.envelope.method_for_record or 'a method'} is none of the merged address: it has tools only"
        await self._refuse_as(turn, Wrong(Code.REQUEST_METHOD_UNKNOWN, note, rpc=METHOD_NOT_FOUND))

    async def _discovered(self, turn: Turn, opened: Open, _: Watch) -> None:
        result: dict[str, Any] = {"supportedVersions": [*MODERN], "capabilities": {"tools": {}}}
        result |= {"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"}
        opened.finish(Completion())
        await self._result(turn, result | {"_meta": {merging.SERVER_KEY: merging.OURSELVES}}, *_headers(opened))

    async def _initialized(self, turn: Turn, opened: Open, _: Watch) -> None:
        """The handshake (2025-11-25, basic/lifecycle). Raises ``Refused`` over the bounds."""
        params = turn.envelope.params
        asked, capabilities = params.get("protocolVersion"), params.get("capabilities")
        info = _encode(params["clientInfo"]) if isinstance(params.get("clientInfo"), dict) else OURSELVES
        talk = self._talks.open(
            turn.principal, capabilities if isinstance(capabilities, dict) else {}, msgspec.Raw(info)
        )
        result: dict[str, Any] = {
            "protocolVersion": asked if asked in LEGACY else LEGACY[0],
            "capabilities": {"tools": {}},
            "serverInfo": merging.OURSELVES,
        }
        opened.finish(Completion())
        await self._result(turn, result, *_headers(opened), (_SESSION, talk.key.encode()))

    async def _result(self, turn: Turn, result: dict[str, Any], *headers: Header) -> None:
        body = _encode({"jsonrpc": "2.0", "id": turn.envelope.id, "result": result})
        await turn.exchange.respond(200, [JSON, *headers], body)

    # --- tools/call ---

    async def _tool(self, turn: Turn) -> None:
        envelope = turn.envelope
        server, tool = merging.split(envelope.params["name"])
        if super()._known(server):
            turn.server = server
        else:
            turn.asked = envelope.params["name"]
        # From here on it is a call of the server's own tool.
        envelope.params = {**envelope.params, "name": tool}
        if (wrong := self._opened_state(turn)) is not None:
            await self._refuse_as(turn, wrong)
            return
        down = Down(turn.exchange, takes_events=EVENTS in turn.heads.text(b"accept"))
        try:
            await self._rounds(turn, tool, down)
        except Refused as refused:
            await self._refuse_as(turn, Wrong(refused.code, refused.note, rpc=REFUSED))
        finally:
            down.close()

    async def _rounds(self, turn: Turn, tool: str, down: Down) -> None:
        """Decide and make the call; again, with the client's answers, where a modern server asks before it goes on."""
        talk = self._talk(turn)
        if talk is None or not turn.server:
            await self._decide(turn, _dead if talk is None else _unknown)
            return
        crossing = Crossing(talk, self._talks.conversation(talk, turn.server), tool, down, self._questions)
        crossing.mirrored(_params_repeated(turn))
        identity = turn.envelope.id
        if talk.key and identity in talk.running:
            await self._decide(turn, _in_flight)
            return
        running = Running()
        if talk.key and identity is not None:
            talk.running[identity] = running
        talk.busy += 1
        try:
            await self._round_by_round(turn, crossing, running)
        except asyncio.CancelledError:
            if not running.took():
                raise
            await down.nothing()
        finally:
            talk.busy -= 1
            if identity is not None and talk.running.get(identity) is running:
                del talk.running[identity]

    async def _round_by_round(self, turn: Turn, crossing: Crossing, running: Running) -> None:
        for number in range(1, ROUNDS + 1):
            this = _Round(crossing, running, last=number == ROUNDS)
            await self._decide(turn, this.forward)
            if this.opened is None or this.wanted is None or not await crossing.gather(this.opened, this.wanted):
                return
            turn.answers = crossing.answers

    # --- tools/list ---

    async def _list(self, turn: Turn) -> None:
        if turn.envelope.params.get("cursor") is not None:
            wrong = Wrong(Code.REQUEST_MALFORMED, "a cursor: the list comes in one piece", rpc=INVALID_PARAMS)
            await self._refuse_as(turn, wrong)
            return
        try:
            talk = self._talk(turn)
        except Refused as refused:
            await self._refuse_as(turn, Wrong(refused.code, refused.note, rpc=REFUSED))
            return
        if talk is None:
            await self._decide(turn, _dead)
            return

        async def forward(turn: Turn, opened: Open, _: Watch) -> None:
            await tell(turn.exchange, 200, *await self._gathering.answer(opened, talk))

        talk.busy += 1
        try:
            await self._decide(turn, forward)
        finally:
            talk.busy -= 1


def _version(turn: Turn) -> Wrong | None:
    """A revision that nobody here speaks, in the header of a legacy request (2025-11-25, basic/transports, "Protocol
    Version Header").
    """
    said = turn.heads.text(b"mcp-protocol-version")
    if turn.envelope.modern or not said or said in LEGACY or said in MODERN:
        return None
    return Wrong(Code.REQUEST_VERSION_UNSUPPORTED, "an unknown protocol revision in the header")


class _Round:
    """One decided call of a crossing, and what the server wants to know after it."""

    def __init__(self, crossing: Crossing, running: Running, *, last: bool) -> None:
        self._crossing = crossing
        self._running = running
        self._last = last
        self.opened: Open | None = None
        self.wanted: Input | None = None

    async def forward(self, _: Turn, opened: Open, __: Watch) -> None:
        self.opened = opened
        try:
            self.wanted = await self._crossing.run(opened, last=self._last)
        except asyncio.CancelledError:
            if self._running.cancelled:
                opened.cancelled = True
                opened.finish(Completion(status=opened.status, is_error=True, error="cancelled"))
            raise


def _params_repeated(turn: Turn) -> tuple[tuple[str, str], ...]:
    """``Mcp-Param-*`` as the client sent them."""
    found = turn.heads.found.items()
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in found if name.startswith(b"mcp-param-")
    )


def _headers(opened: Open) -> list[Header]:
    return answer_headers(opened.admission.answer)


async def _plainly(turn: Turn, opened: Open, status: int, body: bytes) -> None:
    await tell(turn.exchange, status, [JSON, *_headers(opened)], opened.ours(status, body))


async def _dead(turn: Turn, opened: Open, _: Watch) -> None:
    await _plainly(turn, opened, 404, refusals.dead_session(turn.envelope))


async def _in_flight(turn: Turn, opened: Open, _: Watch) -> None:
    body = refusals.protocol_error(turn.envelope, INVALID_REQUEST, "This id is in flight already")
    await _plainly(turn, opened, 400, body)


async def _unknown(turn: Turn, opened: Open, _: Watch) -> None:
    """Permitted, by a rule for everything, and there is no such server: as a server answers for an unknown tool."""
    envelope: Envelope = turn.envelope
    body = refusals.protocol_error(envelope, INVALID_PARAMS, "Unknown tool")
    await _plainly(turn, opened, 400 if envelope.modern else 200, body)
