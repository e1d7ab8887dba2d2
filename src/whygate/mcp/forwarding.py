"""An admitted call on its way to one server, transparent: request up, answer down, and what a session needs to be known of."""

import contextlib
from collections.abc import Mapping
from typing import Final

from whygate.core.reasons import Code
from whygate.flow.ports import Completion
from whygate.mcp import refusals
from whygate.mcp.backend import Answered, Backend, Outgoing, Server
from whygate.mcp.frames import event
from whygate.mcp.methods import LISTEN
from whygate.mcp.passing import Passing
from whygate.mcp.questions import Questions, Within
from whygate.mcp.relay import Open, Stream, tell
from whygate.mcp.results import Undecided
from whygate.mcp.sessions import Bindings
from whygate.mcp.splices import upward as spliced
from whygate.mcp.turns import Turn
from whygate.mcp.watch import Watch
from whygate.transport.asgi import JSON
from whygate.transport.headers import downward, upward
from whygate.transport.refusals import answer_headers

RESULT_CAP_BYTES: Final = 16 * 1024 * 1024
EVENTS: Final = "text/event-stream"


class Forwarder:
    """Owned by the event loop."""

    def __init__(
        self,
        servers: Mapping[str, Server],
        backends: Mapping[str, Backend],
        bindings: Bindings,
        questions: Questions,
        passing: Passing,
    ) -> None:
        self._servers, self._backends = servers, backends
        self._bindings, self._questions, self._passing = bindings, questions, passing

    def outgoing(self, turn: Turn, body: bytes, traceparent: str) -> Outgoing:
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

    async def forward(self, turn: Turn, opened: Open, watch: Watch) -> None:
        exchange, admission = turn.exchange, opened.admission
        out = self.outgoing(turn, spliced(turn.envelope, admission.traceparent), admission.traceparent)
        backend = self._backends[turn.server]
        if not self._bindings.usable(turn.server, out.session, out.principal):
            body = opened.ours(404, refusals.dead_session(turn.envelope))
            await tell(exchange, 404, [JSON, *answer_headers(admission.answer)], body)
            return
        async with backend.send(out) as answer:
            opened.status = answer.status
            if turn.envelope.method == "initialize":
                self._bind(turn, answer)
            if answer.media_type == EVENTS:
                await self._stream(turn, opened, answer, Within(self._questions, admission.call, backend, out), watch)
                return
            body = await answer.read(RESULT_CAP_BYTES)
            try:
                status, passed, own = opened.whole(answer.status, body)
            except Undecided as found:
                may = await Within(self._questions, admission.call, backend, out).may_be_asked(found.questions)
                status, passed, own = opened.whole(answer.status, body, may=may)
            headers = downward(answer.headers) if own else [JSON]
            headers += answer_headers(admission.answer)
        await tell(exchange, status, headers, passed)

    def _bind(self, turn: Turn, answer: Answered) -> None:
        """A session that begins belongs to whoever began it."""
        said = turn.envelope.params.get("capabilities")
        for name, value in answer.headers:
            if name.lower() == "mcp-session-id":
                self._bindings.bind(turn.server, value, turn.principal, said)

    async def _stream(self, turn: Turn, opened: Open, answer: Answered, within: Within, watch: Watch) -> None:
        exchange = turn.exchange
        headers = downward(answer.headers)
        headers += answer_headers(opened.admission.answer)
        if not exchange.started:  # else it was held, and has begun
            await exchange.start(answer.status, headers, at_once=turn.envelope.method == LISTEN)
        stream = Stream(opened, within, RESULT_CAP_BYTES)
        with exchange.resting() if turn.envelope.method == LISTEN else contextlib.nullcontext():
            async for chunk in answer.chunks():
                passed = await stream.feed(chunk)
                if passed:
                    await exchange.send(passed)
                if watch.unheard(len(chunk)):
                    opened.finish(Completion(status=opened.status, is_error=True, error="client_gone"))
                    return
        passed = await stream.end()
        if not opened.done:
            if stream.resumable and not turn.envelope.modern:
                # 2025-11-25: a server may close the stream and answer when the client comes back for the rest.
                self._passing.awaits(opened, turn.heads.text(b"mcp-session-id"))
            else:
                passed += event(opened.fail(Code.UPSTREAM_FAILED))
        if passed:
            await exchange.send(passed)
        await exchange.end()
