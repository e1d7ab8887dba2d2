"""What schemathesis checks besides its own: every refusal of the operators' listener is a problem document (RFC 9457)."""

from typing import Any

import schemathesis

from whygate.core.reasons import Code, Next


@schemathesis.check
def refusals_are_problem_documents(_: Any, response: Any, case: Any) -> None:
    """Type, title and status; and where it was decided, the reason, what to do now, and the record's id."""
    if response.status_code < 400 or case.method == "HEAD":
        return
    (kind,) = response.headers["content-type"]
    assert kind == "application/problem+json", f"{response.status_code} as {kind}"
    told = response.json()
    assert told["status"] == response.status_code
    assert told["type"]
    assert told["title"]
    if "code" in told:
        assert told["type"] == f"urn:whygate:reason:{told['code']}"
        assert Next(told["next"]) is Code(told["code"]).entry.next
        assert told["instance"] == f"urn:uuid:{told['id']}"
