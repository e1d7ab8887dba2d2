"""What is in force, as it is told to people and programs: by the API, by the command line, whoever reads it from where.

Times are texts (RFC 3339, UTC). Keys are added over time, never renamed.
"""

from typing import Any

import msgspec

from whygate.core.approvals import Approval
from whygate.core.events import Person
from whygate.core.exceptions import BreakGlass, Grant, Review, Waiver
from whygate.core.instants import from_us


def approval(one: Approval) -> dict[str, Any]:
    """A question, and how it stands."""
    asked = one.asked
    return {
        "id": one.id,
        "state": one.state.value,
        "principal": asked.principal,
        "on_behalf_of": list(asked.behind),
        "owner": asked.owner,
        "tool": asked.tool,
        "entitlement": asked.entitlement,
        "policy": asked.policy,
        "rule": asked.rule,
        "task": asked.task,
        "trace_id": one.trace,
        "decision": one.decision,
        "approvers": list(asked.approvers),
        "not": list(asked.excluded),
        "quorum": asked.quorum,
        "agreed": list(one.votes),
        "asked_at": _time(one.asked_us),
        "answer_by": _time(one.answer_by_us),
        "answered_at": _time(one.answered_us),
        "usable_until": _time(one.until_us),
        "uses": asked.uses,
        "use_within_s": asked.use_within_s,
        "uses_left": one.uses_left,
        "scope": one.scope,
        "for_task_s": asked.for_task_s,
        "narrow": list(asked.narrow),
        "shown_digest": one.shown_digest,
    }


def grant(one: Grant) -> dict[str, Any]:
    """``uses_left`` is absent (``null``) where uses are not counted."""
    return {
        "id": one.id,
        "entitlement": one.entitlement,
        "principal": one.principal,
        "task": one.task,
        "tools": list(one.tools),
        "patterned": one.patterned,
        "until": _time(one.until_us),
        "uses_left": one.uses_left if one.counted else None,
        "approval": one.approval,
    }


def waiver(one: Waiver) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "owner": one.owner,
        "by": one.by,
        "policy": one.policy,
        "rule": one.rule,
        "agents": list(one.agents),
        "tools": list(one.tools),
        "until": _time(one.until_us),
    }


def breakglass(one: BreakGlass) -> dict[str, Any]:
    return {
        "id": one.id,
        "incident": one.incident,
        "by": one.by,
        "team": one.team,
        "agents": list(one.agents),
        "tools": list(one.tools),
        "task": one.task,
        "until": _time(one.until_us),
    }


def review(one: Review, now_us: int) -> dict[str, Any]:
    return {
        "id": one.id,
        "incident": one.incident,
        "by": one.by,
        "team": one.team,
        "due": _time(one.due_us),
        "overdue": one.overdue(now_us),
    }


def person(one: Person) -> dict[str, Any]:
    """Keys apart: how many there are is what matters."""
    return {
        "id": one.id,
        "name": one.name,
        "roles": list(one.roles),
        "groups": list(one.groups),
        "passkeys": len(one.passkeys),
    }


def document(shown: Any) -> dict[str, Any]:
    """What an approver is shown, as JSON has it."""
    found: dict[str, Any] = msgspec.to_builtins(shown)
    return found


def _time(us: int) -> str | None:
    return from_us(us).isoformat() if us else None
