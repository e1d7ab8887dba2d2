"""What a caller is told when a call does not go through.

Rules of this file:

1. Every refusal carries the reason code, what to do next and the decision's id: in the body for the model or the
   program, in headers for the network.
2. Texts come from the table of reasons and from rules' own words, never from the call.
3. A refused ``tools/call`` is a tool result that a model can read; a protocol error may never reach it. What the
   protocol itself calls malformed keeps the protocol's error and status.
"""

from typing import Any, Final

import msgspec

from whygate.core.reasons import TABLE, Code, Next
from whygate.flow.ports import Admission, Answer
from whygate.mcp.envelope import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, REFUSED, Envelope, Wrong
from whygate.mcp.splices import DECISION_KEY
from whygate.transport import refusals as http
from whygate.transport.asgi import JSON, Header

_ENCODE: Final = msgspec.json.Encoder().encode
_PROTOCOLS_OWN: Final = frozenset((Code.HANDLE_NOT_USABLE, Code.REQUEST_PATH_AMBIGUOUS, Code.REQUEST_MALFORMED))
"""What the protocol itself calls wrong parameters."""
_UNAVAILABLE: Final = frozenset((Code.AUDIT_UNAVAILABLE, Code.OVERLOAD_SHED))


class Reply(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    headers: list[Header]
    body: bytes


def refusal(admission: Admission, envelope: Envelope, wrong: Wrong | None, resource_metadata: str) -> Reply:
    """The answer to a call that was not admitted. ``wrong`` is what the edge itself found in the request."""
    answer = admission.answer
    headers = [JSON, *http.refusal_headers(answer, resource_metadata)]
    if answer.code is Code.REQUEST_METHOD_UNKNOWN:
        headers.append((b"allow", b"POST, GET, DELETE"))  # RFC 9110 section 15.5.6: on every 405
    if answer.code in _UNAVAILABLE or answer.challenge or answer.next is Next.FIX_CREDENTIAL:
        return Reply(http.status_of(answer.code), headers, _error(envelope.id, REFUSED, answer, {}))
    if wrong is not None and wrong.code is Code.REQUEST_METHOD_UNKNOWN and envelope.method:
        # 404 since 2026-07-28; before, to a client in a session it would say that the session is over.
        status = 404 if envelope.modern else 200 if envelope.id is not None else 400
        return Reply(status, headers, _error(envelope.id, wrong.rpc, answer, wrong.extra))
    if wrong is not None and wrong.code is answer.code:
        return Reply(http.status_of(answer.code), headers, _error(envelope.id, wrong.rpc, answer, wrong.extra))
    if envelope.method == "tools/call" and wrong is None:
        return Reply(200, headers, tool_result(envelope, answer, answer.note, answer.code))
    # Who sent no request reads no response: a notification, an answer, a stream or a goodbye is refused by its status.
    rpc = INVALID_PARAMS if answer.code in _PROTOCOLS_OWN else REFUSED
    plain = envelope.id is not None and not (envelope.modern and rpc == INVALID_PARAMS)
    status = 200 if plain else http.status_of(answer.code)
    return Reply(status, headers, _error(envelope.id, rpc, answer, {}))


def failure(answer: Answer, envelope: Envelope, code: Code, *, sent: bool = True) -> bytes:
    """The JSON-RPC response to an admitted call that the upstream did not answer. ``code`` is one of completions; the
    decision in it stays what it was: the call *was* allowed.
    """
    note = TABLE[code].user if sent else http.NOT_SENT
    if envelope.method == "tools/call":
        return tool_result(envelope, answer, note, code)
    data = http.data(answer) | {"completion": code.value}
    rpc = REFUSED if code is Code.RESULT_QUESTION_REFUSED else INTERNAL_ERROR
    return _response(envelope.id, "error", {"code": rpc, "message": note, "data": data})


def to_server(identity: int | str, rpc: int, answer: Answer) -> bytes:
    """The JSON-RPC response to a server whose question was refused, in the client's place. Says no more than the code: what
    this gateway thinks of its own servers is not for them.
    """
    return _response(identity, "error", {"code": rpc, "message": answer.note, "data": {"code": answer.code.value}})


def plain_failure(envelope: Envelope, code: Code) -> bytes:
    """The same for a request that passes without a decision."""
    entry = TABLE[code]
    data = {"code": code.value, "note": entry.user, "next": entry.next.value}
    return _response(envelope.id, "error", {"code": INTERNAL_ERROR, "message": entry.user, "data": data})


def dead_session(envelope: Envelope) -> bytes:
    """For a session that is not, or is somebody else's: both alike. With 404 the client begins anew (2025-11-25,
    basic/transports, "Session Management").
    """
    return protocol_error(envelope, INVALID_REQUEST, "Session not found")


def protocol_error(envelope: Envelope, code: int, message: str) -> bytes:
    """A JSON-RPC error that is the transport's own, without a decision."""
    return _response(envelope.id, "error", {"code": code, "message": message})


def internal() -> Reply:
    """When even refusing failed: nothing is told but that."""
    error = {"code": INTERNAL_ERROR, "message": "Internal error"}
    return Reply(500, [JSON], _response(None, "error", error))


def tool_result(envelope: Envelope, answer: Answer, note: str, code: Code) -> bytes:
    """A tool result that says what happened in words for the model, and in ``_meta`` for programs."""
    told = http.data(answer)
    after = answer.next
    if code is not answer.code:
        told["completion"] = code.value
        after = TABLE[code].next
    if answer.approval_url:
        note = f"{note} Ask for it to be answered at {answer.approval_url} (until {answer.answer_by}), then call again."
    text = f"{note} [{code.value}; next: {after.value}; decision: {answer.id or 'not recorded'}]"
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": {DECISION_KEY: told},
    }
    if envelope.modern:
        result["resultType"] = "complete"  # required of results since 2026-07-28
    return _response(envelope.id, "result", result)


def _error(identity: int | str | None, rpc: int, answer: Answer, extra: dict[str, Any]) -> bytes:
    data = http.data(answer) | extra
    return _response(identity, "error", {"code": rpc, "message": answer.note, "data": data})


def _response(identity: int | str | None, member: str, value: dict[str, Any]) -> bytes:
    return _ENCODE({"jsonrpc": "2.0", "id": identity, member: value})
