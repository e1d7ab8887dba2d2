"""One admitted call on its way back: the upstream's messages are passed on, and what became of the call is told once.

Rules of this file:

1. ``gate.complete`` is called exactly once for each admitted call, whatever happens to client and upstream.
2. Only the response to our own request is touched; every other message passes with the bytes it came with.
3. What can't be read is not passed off as an answer: a list that can't be filtered is not shown.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.flow.ports import Admission, Completion, Gate
from whygate.mcp import frames, lists, refusals, splices
from whygate.mcp.backend import Catalogue
from whygate.mcp.envelope import Envelope
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

    __slots__ = ("_catalogue", "_gate", "admission", "cancelled", "done", "envelope", "held", "server", "status")

    def __init__(self, gate: Gate, catalogue: Catalogue, admission: Admission, envelope: Envelope) -> None:
        self._gate = gate
        self._catalogue = catalogue
        self.admission = admission
        self.envelope = envelope
        self.server = admission.call.server
        self.done = False
        self.held = False
        """Its answer will come on another stream of the session."""
        self.cancelled = False
        """Its client has said that it wants no answer."""
        self.status = 0
        """HTTP status of the upstream, once known."""

    def finish(self, completion: Completion) -> None:
        """Tell the end of the call. Only the first word counts."""
        if not self.done:
            self.done = True
            self._gate.complete(self.admission, completion)

    def fail(self, code: Code, error: str = "", *, sent: bool = True) -> bytes:
        """Complete with a failure of the upstream, and return the JSON-RPC response that says so. ``sent``: whether any of
        the call may have reached it.
        """
        error = error or (code.value if sent else "not_sent")
        self.finish(Completion(status=self.status, is_error=True, error=error, code=code))
        return refusals.failure(self.admission.answer, self.envelope, code, sent=sent)

    def answered(self, data: bytes) -> bytes | None:
        """The message to pass on if ``data`` is the response to our request (the call is then completed); ``None``
        where it is any other message. Nothing for a second response: what was recorded is the first.
        """
        message = splices.opened(data)
        if message is None or message.method:
            return None
        identity = self.envelope.id
        if message.error:
            if message.id is not None and message.id != identity:
                return None
            if self.done:
                return b""
            code = splices.error_code(message.error)
            self._finish(message.error, is_error=True, error=code or "error")
            return data
        if not message.result or message.id != identity:
            return None
        return b"" if self.done else self._result(data, message.result)

    def _result(self, data: bytes, raw: msgspec.Raw) -> bytes:
        # Not all readers of JSON look whether strings are UTF-8 (RFC 8259 section 8.1); some agents' do, and choke on it.
        result = splices.members(raw) if is_utf8(data) else None
        hidden = 0
        made: dict[str, Any]
        if self.envelope.method == "tools/list":
            shown = None if result is None else self._filtered(result)
            if shown is None:
                return self.fail(Code.UPSTREAM_FAILED, "unreadable")
            made, hidden = shown
        elif result is None:
            return self.fail(Code.UPSTREAM_FAILED, "unreadable")
        else:
            made = dict(result)
        is_error = "isError" in made and bytes(made["isError"]) == b"true"
        self._finish(raw, is_error=is_error, error="tool_error" if is_error else "", hidden=hidden)
        return splices.downward(data, made, _encode(self.admission.answer))

    def _filtered(self, result: dict[str, msgspec.Raw]) -> tuple[dict[str, Any], int] | None:
        self._catalogue.learn(self.server, lists.names(result))
        seen = sight(self._gate, self.admission.call.principal, self.server)
        return lists.filtered(result, seen, modern=self.envelope.modern)

    def _finish(self, raw: msgspec.Raw, *, is_error: bool, error: str, hidden: int = 0) -> None:
        data = bytes(raw)
        self.finish(
            Completion(
                status=self.status,
                is_error=is_error,
                error=error,
                result_bytes=len(data),
                result_digest=self._gate.digest(data),
                hidden=hidden,
            )
        )

    def whole(self, status: int, body: bytes) -> tuple[int, bytes, bool]:
        """Status and body to pass on for an answer that came in one piece, and whether it is the upstream's own."""
        self.status = status
        if status not in _CREDENTIAL:
            passed = self.answered(body)
            if passed is not None:
                return status, passed, True
            if 400 <= status < 500 and status != 403:
                # A dead session (404) and the like: the client's own protocol machinery has to see it as it is.
                digest = self._gate.digest(body)
                self.finish(
                    Completion(
                        status=status, is_error=True, error=str(status), result_bytes=len(body), result_digest=digest
                    )
                )
                return status, body, True
        return 200, self.fail(Code.UPSTREAM_FAILED, str(status)), False


def sight(gate: Gate, principal: Principal, server: str) -> Callable[[str], bool]:
    """Whether this principal may see a tool of this server, by the tool's name."""
    return lambda name: gate.visible(principal, f"{server}/{name}")


class Stream:
    """The frames of an event stream on their way down, the response to our request completed in passing."""

    __slots__ = ("_frames", "_open", "resumable")

    def __init__(self, opened: Open, cap_bytes: int) -> None:
        self._open = opened
        self._frames = frames.Frames(cap_bytes)
        self.resumable = False
        """Events carry ids: a legacy client may come back for the rest."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes to pass on now. Raises ``frames.FrameTooLarge``."""
        return self._passed(self._frames.feed(chunk))

    def end(self) -> bytes:
        rest = self._frames.end()
        return b"" if rest is None else self._passed((rest,))

    def _passed(self, found: Iterable[frames.Frame]) -> bytes:
        out = []
        for frame in found:
            self.resumable = self.resumable or frame.has_id
            passed = self._open.answered(frame.data) if frame.data else None
            if passed == b"":
                continue
            out.append(frame.raw if passed is None or passed is frame.data else frame.with_data(passed))
        return b"".join(out)


def replayed(data: bytes, seen: Callable[[str], bool]) -> bytes | None:
    """For a stream that was taken up again: a response with a list of tools, filtered like the first time; ``None``
    where ``data`` is anything else.
    """
    message = splices.opened(data)
    if message is None or message.method or not message.result:
        return None
    result = splices.members(message.result)
    shown = None if result is None or "tools" not in result else lists.filtered(result, seen, modern=False)
    if shown is None:
        return None
    whole: dict[str, Any] = splices.members(data) or {}
    whole["result"] = shown[0]
    return _encode(whole)


async def tell(exchange: Exchange, status: int, headers: list[Header], body: bytes) -> None:
    """A whole response, or, where one has begun to stream, its last event."""
    if exchange.started:
        await exchange.send(frames.event(body))
        await exchange.end()
    else:
        await exchange.respond(status, headers, body)
