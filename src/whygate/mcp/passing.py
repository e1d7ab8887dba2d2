"""What passes without a result that anybody waits for as a call: pings, notifications, the client's answers, streams, goodbyes.

Rules of this file:

1. Bytes pass as they come, both ways, unbuffered where they are a stream; only what a server asks is held to its rules.
2. A session works only for the principal that opened it.
3. On a legacy stream that is taken up again, answers to decided calls can arrive late: they are completed, and lists
   are filtered, as they would have been at once.
4. What has a record is completed once, however it ends; pings and notifications have none (``flow.ports.Gate.glance``).
"""

import asyncio
from collections import OrderedDict
from typing import Any, Final

import msgspec

from whygate.core.reasons import Code
from whygate.flow.ports import Admission, Completion, Gate
from whygate.mcp import asking, refusals, splices
from whygate.mcp.backend import Answered, Outgoing
from whygate.mcp.envelope import Envelope
from whygate.mcp.frames import Frame, Frames, FrameTooLarge
from whygate.mcp.questions import Within
from whygate.mcp.relay import Open, tell
from whygate.mcp.results import Results, asked_in
from whygate.mcp.sessions import Bindings
from whygate.mcp.watch import Watch
from whygate.transport.asgi import JSON, Exchange, Header
from whygate.transport.headers import downward
from whygate.transport.refusals import answer_headers, status_of
from whygate.transport.upstream import UpstreamError

CAP_BYTES: Final = 16 * 1024 * 1024
EVENTS: Final = "text/event-stream"
_AWAITED: Final = 1000
"""Calls whose answer was put off to another stream; beyond, the oldest is given up."""
_CREDENTIAL: Final = frozenset((401, 407))


class Ending:
    """How an exchange without a result ends: told once, and only of one that has a record."""

    __slots__ = ("_admission", "_gate", "completion")

    def __init__(self, gate: Gate, admission: Admission | None) -> None:
        self._gate = gate
        self._admission = admission
        self.completion = Completion(is_error=True, error="internal", code=Code.UPSTREAM_FAILED)

    @property
    def headers(self) -> list[Header]:
        return [] if self._admission is None else answer_headers(self._admission.answer)

    def answered(self, status: int, size_bytes: int) -> None:
        is_error = status >= 400
        self.completion = Completion(
            status=status, is_error=is_error, error=str(status) if is_error else "", result_bytes=size_bytes
        )

    def failed(self, error: str, code: Code | None) -> None:
        self.completion = Completion(is_error=True, error=error, code=code)

    def close(self) -> None:
        if self._admission is not None:
            self._gate.complete(self._admission, self.completion)


class Passing:
    def __init__(self, gate: Gate, bindings: Bindings, results: Results) -> None:
        self._gate = gate
        self._bindings = bindings
        self._results = results
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

    async def through(self, exchange: Exchange, within: Within, admission: Admission | None) -> None:
        """Pass one exchange, and complete its ``admission`` where it has one. Raises ``backend.Refused`` before anything was
        sent.
        """
        out, server = within.out, within.call.server
        ending = Ending(self._gate, admission)
        # A client that leaves is seen by the upstream as it would be without us: its connection closes.
        watch = Watch(exchange, cancels=True)
        try:
            if not self._bindings.usable(server, out.session, out.principal):
                ending.answered(404, 0)
                await exchange.respond(404, [JSON, *ending.headers], refusals.dead_session(out.envelope))
                return
            async with within.backend.send(out) as answer:
                self._learn(server, out, answer)
                if answer.media_type == EVENTS:
                    await self._stream(exchange, within, answer, ending)
                else:
                    body = await answer.read(CAP_BYTES)
                    ending.answered(answer.status, len(body))
                    body = await self._whole(answer, body, within)
                    await exchange.respond(answer.status, [*downward(answer.headers), *ending.headers], body)
        except UpstreamError as error:
            ending.failed(error.code.value, error.code)
            await _failed(exchange, out, error.code, ending.headers)
        except FrameTooLarge:
            ending.failed(Code.RESULT_TOO_LARGE.value, Code.RESULT_TOO_LARGE)
            await _failed(exchange, out, Code.RESULT_TOO_LARGE, ending.headers)
        except asyncio.CancelledError:
            ending.failed("client_gone" if watch.left else "stopped", None)
            if not watch.took():
                raise
        finally:
            watch.close()
            ending.close()

    def _learn(self, server: str, out: Outgoing, answer: Answered) -> None:
        """Look at the answer's head: a session that ends, and whether we were let in at all."""
        if answer.status in _CREDENTIAL:
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool did not take the gateway's credential")
        if out.http_method == "DELETE" and answer.status < 400:
            self._bindings.forget(server, out.session)

    async def _stream(self, exchange: Exchange, within: Within, answer: Answered, ending: Ending) -> None:
        await exchange.start(answer.status, [*downward(answer.headers), *ending.headers], at_once=True)
        parser, size = Frames(CAP_BYTES), 0
        async for chunk in answer.chunks():
            passed = b"".join([await self._frame(frame, within) for frame in parser.feed(chunk)])
            if passed:
                size += len(passed)
                await exchange.send(passed)
        rest = parser.end()
        if rest is not None:
            await exchange.send(await self._frame(rest, within))
        ending.answered(answer.status, size)
        await exchange.end()

    async def _whole(self, answer: Answered, body: bytes, within: Within) -> bytes:
        """A body that came in one piece, as the client gets it: some clients take any JSON for a message, whatever they sent."""
        if not body or answer.media_type != "application/json":
            return body
        if answer.status >= 400:
            return body if asking.is_harmless(body) else b""
        passed = await self._message(body, within)
        return b"" if passed is None else passed

    async def _frame(self, frame: Frame, within: Within) -> bytes:
        """A frame as the client gets it; empty where it gets none."""
        data = frame.data
        if not data:
            return frame.raw
        passed = await self._message(data, within)
        return b"" if passed is None else frame.raw if passed is data else frame.with_data(passed)

    async def _message(self, data: bytes, within: Within) -> bytes | None:
        """A message as the client gets it; ``None`` where it gets none."""
        message = splices.opened(data)
        if message is not None and not message.method and (message.result or message.error):
            return await self._response(data, message, within)
        self._results.news(within.call.server, data)
        return data if await within.message_may_pass(data) else None

    async def _response(self, data: bytes, message: splices.Message, within: Within) -> bytes | None:
        """A response on a stream that was taken up again, or to a ping."""
        out, server = within.out, within.call.server
        identity = message.id if isinstance(message.id, int | str) else None
        opened = self._awaited.pop((server, out.session, identity), None) if out.http_method == "GET" else None
        if opened is not None:
            passed = await opened.answer(data, within)
            return data if passed is None else passed
        if out.http_method != "GET" and identity != out.envelope.id:
            return None
        if (found := asked_in(message)) and not await within.may_be_asked(found):
            return None
        passed = self._results.replayed(data, server, out.principal) if out.http_method == "GET" else None
        return data if passed is None else passed


def _give_up(opened: Open) -> None:
    opened.finish(Completion(status=opened.status, is_error=True, error="unanswered", code=Code.OUTCOME_UNKNOWN))


async def _failed(exchange: Exchange, out: Outgoing, code: Code, headers: list[Header]) -> None:
    body = refusals.plain_failure(out.envelope, code)
    if out.http_method == "POST" and out.envelope.id is not None:
        await tell(exchange, 200, [JSON, *headers], body)
    elif exchange.started:
        await exchange.end()
    else:
        await exchange.respond(status_of(code), [JSON, *headers], body)


def said(envelope: Envelope) -> dict[str, Any]:
    """What a client answers to a server's question, for the record's digest."""
    parts = envelope.parts
    return {name: msgspec.json.decode(parts[name]) for name in ("result", "error") if name in parts}


def is_light(envelope: Envelope) -> bool:
    """Whether it is a ping or a notification."""
    return envelope.method == "ping" or (envelope.method != "" and envelope.id is None)
