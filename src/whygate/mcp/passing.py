"""What passes without a decision of its own: the handshake, notifications, the client's answers, streams.

Rules of this file:

1. Bytes pass as they come, both ways, unbuffered where they are a stream.
2. A session works only for the principal that opened it.
3. On a legacy stream that is taken up again, answers to decided calls can arrive late: they are completed, and lists
   are filtered, as they would have been at once.
"""

import asyncio
from collections import OrderedDict
from typing import Final

from whygate.core.reasons import Code
from whygate.flow.ports import Completion, Gate
from whygate.mcp import refusals, splices
from whygate.mcp.backend import Answered, Backend, Outgoing
from whygate.mcp.frames import Frame, Frames, FrameTooLarge
from whygate.mcp.relay import Open, replayed, sight, tell
from whygate.mcp.sessions import Bindings
from whygate.mcp.watch import Watch
from whygate.transport.asgi import JSON, Exchange
from whygate.transport.headers import downward
from whygate.transport.refusals import status_of
from whygate.transport.upstream import UpstreamError

CAP_BYTES: Final = 16 * 1024 * 1024
EVENTS: Final = "text/event-stream"
_AWAITED: Final = 1000
"""Calls whose answer was put off to another stream; beyond, the oldest is given up."""
_CREDENTIAL: Final = frozenset((401, 407))


class Passing:
    def __init__(self, gate: Gate, bindings: Bindings) -> None:
        self._gate = gate
        self._bindings = bindings
        self._awaited: OrderedDict[tuple[str, str, int | str | None], Open] = OrderedDict()

    def close(self) -> None:
        """Give up every answer that is still awaited."""
        for opened in self._awaited.values():
            _give_up(opened)
        self._awaited.clear()

    def awaits(self, opened: Open, session: str) -> None:
        """The stream of a legacy call was closed before its answer: the client will fetch it by ``GET``."""
        opened.held = True
        key = (opened.server, session, opened.envelope.id)
        replaced = self._awaited.pop(key, None)
        if replaced is not None:
            _give_up(replaced)
        self._awaited[key] = opened
        if len(self._awaited) > _AWAITED:
            _give_up(self._awaited.popitem(last=False)[1])

    async def through(self, exchange: Exchange, server: str, backend: Backend, out: Outgoing) -> None:
        """Pass one exchange. Raises ``backend.Refused`` before anything was sent."""
        if not self._bindings.usable(server, out.session, out.principal):
            await exchange.respond(404, [JSON], refusals.dead_session(out.envelope))
            return
        # A client that leaves is seen by the upstream as it would be without us: its connection closes.
        watch = Watch(exchange, cancels=True)
        try:
            async with backend.send(out) as answer:
                self._learn(server, out, answer)
                if answer.media_type == EVENTS:
                    await self._stream(exchange, server, out, answer)
                else:
                    body = await answer.read(CAP_BYTES)
                    await exchange.respond(answer.status, downward(answer.headers), body)
        except UpstreamError as error:
            await _failed(exchange, out, error.code)
        except FrameTooLarge:
            await _failed(exchange, out, Code.RESULT_TOO_LARGE)
        except asyncio.CancelledError:
            if not watch.took():
                raise
        finally:
            watch.close()

    def _learn(self, server: str, out: Outgoing, answer: Answered) -> None:
        """Look at the answer's head: sessions that begin or end, and whether we were let in at all."""
        if answer.status in _CREDENTIAL:
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool did not take the gateway's credential")
        if out.envelope.method == "initialize":
            for name, value in answer.headers:
                if name.lower() == "mcp-session-id":
                    self._bindings.bind(server, value, out.principal)
        elif out.http_method == "DELETE" and answer.status < 400:
            self._bindings.forget(server, out.session)

    async def _stream(self, exchange: Exchange, server: str, out: Outgoing, answer: Answered) -> None:
        await exchange.start(answer.status, downward(answer.headers))
        if out.http_method != "GET":
            async for chunk in answer.chunks():
                await exchange.send(chunk)
            await exchange.end()
            return
        parser = Frames(CAP_BYTES)
        async for chunk in answer.chunks():
            passed = b"".join([self._late(frame, server, out) for frame in parser.feed(chunk)])
            if passed:
                await exchange.send(passed)
        rest = parser.end()
        if rest is not None:
            await exchange.send(self._late(rest, server, out))
        await exchange.end()

    def _late(self, frame: Frame, server: str, out: Outgoing) -> bytes:
        """A frame of a stream that was taken up again."""
        data = frame.data
        message = splices.opened(data) if data else None
        if message is None or data is None or message.method:
            return frame.raw
        identity = message.id if isinstance(message.id, int | str) else None
        opened = self._awaited.pop((server, out.session, identity), None)
        if opened is not None:
            passed = opened.answered(data)
        else:
            passed = replayed(data, sight(self._gate, out.principal, server))
        return frame.raw if passed is None or passed is data else frame.with_data(passed)


def _give_up(opened: Open) -> None:
    opened.finish(Completion(status=opened.status, is_error=True, error="unanswered", code=Code.OUTCOME_UNKNOWN))


async def _failed(exchange: Exchange, out: Outgoing, code: Code) -> None:
    if out.http_method == "POST" and out.envelope.id is not None:
        await tell(exchange, 200, [JSON], refusals.plain_failure(out.envelope, code))
    elif exchange.started:
        await exchange.end()
    else:
        await exchange.respond(status_of(code), [JSON], refusals.plain_failure(out.envelope, code))
