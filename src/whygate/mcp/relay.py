"""One admitted call on its way back: the upstream's messages are passed on, and what became of the call is told once.

Rules of this file:

1. ``gate.complete`` is called exactly once for each admitted call, whatever happens to client and upstream.
2. Only the response to our own request is touched; every other message passes with the bytes it came with.
3. What can't be read is not passed off as an answer: a list that can't be filtered is not shown.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from whygate.core.reasons import Code
from whygate.flow.ports import Admission, Completion, Gate
from whygate.mcp import asking, frames, refusals, splices
from whygate.mcp.asking import Question
from whygate.mcp.envelope import Envelope
from whygate.mcp.methods import REQUESTS
from whygate.mcp.questions import Place, Within
from whygate.mcp.results import COMPLETE, PLAIN, URL_REQUIRED, Results, Undecided, failed_within, questions
from whygate.transport.asgi import Exchange, Header

_encode: Final = msgspec.json.Encoder().encode
_CREDENTIAL: Final = frozenset((401, 407))
"""The upstream did not take *our* credential: nothing the agent could mend, so it does not learn of it."""


def is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class Open:
    """An admitted call that has not been completed yet."""

    __slots__ = (
        *("_gate", "_results", "admission", "besides", "cancelled", "done", "envelope", "held", "server", "status"),
        "withheld",
    )

    def __init__(self, gate: Gate, results: Results, admission: Admission, envelope: Envelope) -> None:
        self._gate = gate
        self._results = results
        self.admission = admission
        self.besides: Sequence[Admission] = ()
        """What else was admitted for the same request (``subscriptions/listen``); it ends with it."""
        self.envelope = envelope
        self.server = admission.call.server
        self.done = False
        self.held = False
        """Its answer will come on another stream of the session."""
        self.withheld = False
        """It asked for something that may not be asked."""
        self.cancelled = False
        """Its client has said that it wants no answer."""
        self.status = 0
        """HTTP status of the upstream, once known."""

    def finish(self, completion: Completion) -> None:
        """Tell the end of the call. Only the first word counts."""
        if not self.done:
            self.done = True
            self._gate.complete(self.admission, completion)
            if self.besides:
                for other in self.besides:
                    self._gate.complete(other, completion)

    def fail(self, code: Code, error: str = "", *, sent: bool = True) -> bytes:
        """Complete with a failure of the upstream, and return the JSON-RPC response that says so. ``sent``: whether any of
        the call may have reached it.
        """
        error = error or (code.value if sent else "not_sent")
        self.finish(Completion(status=self.status, is_error=True, error=error, code=code))
        return refusals.failure(self.admission.answer, self.envelope, code, sent=sent)

    async def answer(self, data: bytes, place: Place) -> bytes | None:
        """As ``answered``, once it is decided whether what it asks of the client may be asked."""
        try:
            return self.answered(data)
        except Undecided as found:
            return self.answered(data, may=await place.may_be_asked(found.questions))

    def answered(self, data: bytes, *, may: bool | None = None) -> bytes | None:
        """The message to pass on if ``data`` is the response to our request (the call is then completed); ``None``
        where it is any other message. Nothing for a second response: what was recorded is the first. Raises ``Undecided``
        for one with questions, unless ``may`` says whether they may be asked.
        """
        message = splices.opened(data)
        if message is None or message.method:
            return None
        identity = self.envelope.id
        if message.error and message.result:  # one client reads this, another that
            if message.id != identity:
                return None
            return b"" if self.done else self.fail(Code.UPSTREAM_FAILED, "unreadable")
        if message.error:
            if message.id is not None and message.id != identity:
                return None
            if self.done:
                return b""
            code = splices.error_code(message.error)
            if code == URL_REQUIRED and not _settled(asking.in_error(message.error), may=may):
                return self._withhold(message.error)
            self._finish(message.error, is_error=True, error=code or "error")
            return data
        if not message.result or message.id != identity:
            return None
        return b"" if self.done else self._result(data, message.result, may=may)

    def _result(self, data: bytes, raw: msgspec.Raw, *, may: bool | None) -> bytes:
        # Not all readers of JSON look whether strings are UTF-8 (RFC 8259 section 8.1); some agents' do, and choke on it.
        result = splices.members(raw) if is_utf8(data) else None
        if result is None:
            return self.fail(Code.UPSTREAM_FAILED, "unreadable")
        made: dict[str, Any] = dict(result)
        hidden = 0
        is_error = "isError" in made and bytes(made["isError"]) == b"true"
        decision = _encode(self.admission.answer)
        method = self.envelope.method
        member = "" if method == "tools/call" else REQUESTS[method].shows
        # What is plain is most of what there is, and costs no look.
        if member or not PLAIN.issuperset(made) or ("resultType" in made and bytes(made["resultType"]) != COMPLETE):
            call, envelope = self.admission.call, self.envelope
            if member:
                shown = self._results.listed(call, member, result, modern=envelope.modern)
                if shown is None:
                    return self.fail(Code.UPSTREAM_FAILED, "unreadable")
                made, hidden = shown
            is_error = is_error or failed_within(made)
            if not _settled(questions(result), may=may):
                return self._withhold(raw)
            self._results.bound(call, envelope, made, decision)
        self._finish(raw, is_error=is_error, error="tool_error" if is_error else "", hidden=hidden)
        if not made and method != "tools/call":
            # An acknowledgement: some readers want it empty, and the headers tell the rest.
            return data
        return splices.downward(data, made, decision)

    def _withhold(self, raw: msgspec.Raw) -> bytes:
        """Complete with what came, and say that it is not passed on."""
        code = Code.RESULT_QUESTION_REFUSED
        self.withheld = True
        self._finish(raw, is_error=True, error="question", code=code)
        return refusals.failure(self.admission.answer, self.envelope, code)

    def _finish(
        self, raw: msgspec.Raw, *, is_error: bool, error: str, hidden: int = 0, code: Code | None = None
    ) -> None:
        data = bytes(raw)
        self.finish(
            Completion(
                code=code,
                status=self.status,
                is_error=is_error,
                error=error,
                result_bytes=len(data),
                result_digest=self._gate.digest(data),
                hidden=hidden,
            )
        )

    def ours(self, status: int, body: bytes) -> bytes:
        """Complete with a response of our own, which asks nothing, instead of a server's; it is passed on as it is."""
        self.status = status
        return self.answered(body) or body

    def whole(self, status: int, body: bytes, *, may: bool | None = None) -> tuple[int, bytes, bool]:
        """Status and body to pass on for an answer that came in one piece, and whether it is the upstream's own. Raises
        ``Undecided`` as ``answered`` does.
        """
        self.status = status
        if status not in _CREDENTIAL:
            passed = self.answered(body, may=may)
            if passed is not None:
                return status, passed, True
            if 400 <= status < 500 and status != 403 and asking.is_harmless(body):
                # A dead session (404) and the like: the client's own protocol machinery has to see it as it is.
                digest = self._gate.digest(body)
                self.finish(
                    Completion(
                        status=status, is_error=True, error=str(status), result_bytes=len(body), result_digest=digest
                    )
                )
                return status, body, True
        return 200, self.fail(Code.UPSTREAM_FAILED, str(status)), False


class Stream:
    """The frames of an event stream on their way down, the response to our request completed in passing."""

    __slots__ = ("_frames", "_open", "_within", "resumable")

    def __init__(self, opened: Open, within: Within, cap_bytes: int) -> None:
        self._open = opened
        self._within = within
        self._frames = frames.Frames(cap_bytes)
        self.resumable = False
        """Events carry ids: a legacy client may come back for the rest."""

    async def feed(self, chunk: bytes) -> bytes:
        """The bytes to pass on now. Raises ``frames.FrameTooLarge``."""
        return await self._passed(self._frames.feed(chunk))

    async def end(self) -> bytes:
        rest = self._frames.end()
        return b"" if rest is None else await self._passed((rest,))

    async def _passed(self, found: Iterable[frames.Frame]) -> bytes:
        out = []
        for frame in found:
            self.resumable = self.resumable or frame.has_id
            passed = await self._open.answer(frame.data, self._within) if frame.data else None
            if passed == b"" or (passed is None and frame.data and not await self._within.message_may_pass(frame.data)):
                continue
            out.append(frame.raw if passed is None or passed is frame.data else frame.with_data(passed))
        return b"".join(out)


def _settled(found: Sequence[Question], *, may: bool | None) -> bool:
    """Whether all that is asked may be asked. Raises ``Undecided`` where that is not known yet."""
    if not found:
        return True
    if may is None:
        raise Undecided(found)
    return may


async def tell(exchange: Exchange, status: int, headers: list[Header], body: bytes) -> None:
    """A whole response, or, where one has begun to stream, its last event."""
    if exchange.started:
        await exchange.send(frames.event(body))
        await exchange.end()
    else:
        await exchange.respond(status, headers, body)
