"""What a refusal looks like over HTTP: status, headers, and the data that every answer carries."""

from typing import Final

import msgspec

from whygate.core.reasons import Code, Outcome
from whygate.flow.ports import Answer
from whygate.transport.asgi import Header

RETRY_AFTER_S: Final = 5
"""A disk that is full or a queue that is long is rarely better sooner."""

_STATUS: Final[dict[Code, int]] = {
    Code.AGENT_UNAUTHENTICATED: 401,
    Code.AGENT_TOKEN_EXPIRED: 401,
    Code.AGENT_TOKEN_AUDIENCE: 401,
    Code.AUTHN_INSUFFICIENT: 401,
    Code.DELEGATION_INVALID: 401,
    Code.REQUEST_MALFORMED: 400,
    Code.REQUEST_DUPLICATE_KEY: 400,
    Code.REQUEST_BATCH: 400,
    Code.REQUEST_HEADER_MISMATCH: 400,
    Code.REQUEST_VERSION_UNSUPPORTED: 400,
    Code.REQUEST_PATH_AMBIGUOUS: 400,
    Code.HANDLE_NOT_USABLE: 400,
    Code.REQUEST_TOO_LARGE: 413,
    Code.ARGS_TOO_LARGE: 413,
    Code.ARGS_SCHEMA_INVALID: 422,
    Code.REQUEST_METHOD_UNKNOWN: 405,
    Code.REQUEST_SERVER_UNKNOWN: 404,
    Code.TOOL_UNKNOWN: 404,
    Code.RATE_LIMITED: 429,
    Code.QUOTA_EXCEEDED: 429,
    Code.POLICY_EVAL_ERROR: 500,
    Code.PDP_MAPPING_ERROR: 500,
    Code.INTERNAL_ERROR: 500,
    Code.UPSTREAM_FAILED: 502,
    Code.UPSTREAM_TIMEOUT: 504,
    Code.RESULT_TOO_LARGE: 502,
    Code.OUTCOME_UNKNOWN: 502,
}


def status_of(code: Code) -> int:
    """The HTTP status for a refusal: 503 for errors that pass, 403 for everything without a more exact one."""
    found = _STATUS.get(code)
    if found is not None:
        return found
    return 503 if code.entry.outcome is Outcome.ERROR else 403


def answer_headers(answer: Answer) -> list[Header]:
    """``whygate-decision``, ``whygate-outcome`` and ``whygate-reason``: on every answer."""
    return [
        (b"whygate-decision", answer.id.encode()),
        (b"whygate-outcome", answer.outcome.value.encode()),
        (b"whygate-reason", answer.code.value.encode()),
    ]


def refusal_headers(answer: Answer, resource_metadata: str) -> list[Header]:
    """The headers of a refused answer: the above, and the way forward that HTTP itself has a header for."""
    headers = answer_headers(answer)
    status = status_of(answer.code)
    if answer.challenge:
        told = f'Bearer {answer.challenge}, resource_metadata="{resource_metadata}"'
        headers.append((b"www-authenticate", told.encode("latin-1")))
    elif status == 401:
        headers.append((b"www-authenticate", challenge(answer.code, resource_metadata).encode("latin-1")))
    if answer.approval_url:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    if status in (429, 503):
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    return headers


def challenge(code: Code, resource_metadata: str) -> str:
    """A bearer challenge (RFC 6750 section 3) that names the protected resource metadata (RFC 9728 section 5.1)."""
    parts = ["Bearer"]
    if code is Code.AUTHN_INSUFFICIENT:
        parts.append('error="insufficient_user_authentication",')  # RFC 9470 section 3
    elif code is not Code.AGENT_UNAUTHENTICATED:
        parts.append('error="invalid_token",')
    parts.append(f'resource_metadata="{resource_metadata}"')
    return " ".join(parts)


def data(answer: Answer) -> dict[str, str]:
    """``{id, outcome, code, note, next}``: what every answer tells a program."""
    told = {
        "id": answer.id,
        "outcome": answer.outcome.value,
        "code": answer.code.value,
        "note": answer.note,
        "next": answer.next.value,
    }
    if answer.approval:
        told["approval"] = answer.approval
    if answer.approval_url:
        told |= {"approval_url": answer.approval_url, "answer_by": answer.answer_by}
    return told


NOT_SENT: Final = "The tool could not be reached. The call was not sent to it, so it has not acted."
"""Instead of a completion code's own words, which leave open what the tool did."""


def problem(answer: Answer, *, became: Code | None = None) -> bytes:
    """A problem document (RFC 9457 section 3) with the answer's data as extension members.

    ``became``: the completion code of a call that was allowed and then failed; the problem is that, not the decision.
    """
    code = became or answer.code
    body = {
        "type": f"urn:whygate:reason:{code.value}",
        "title": code.value if became else f"{answer.outcome.value}: {code.value}",
        "status": status_of(code),
        "detail": answer.note,
        **data(answer),
    }
    if answer.id:
        body["instance"] = f"urn:uuid:{answer.id}"
    return msgspec.json.encode(body)
