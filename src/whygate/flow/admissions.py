"""Decisions that no rule took part in, and admissions: what the edges get of a decision."""

import msgspec

from whygate.core import ids
from whygate.core.approvals import Approval
from whygate.core.calls import ToolCall
from whygate.core.decision import Claim, Decision
from whygate.core.facts import TaskFacts
from whygate.core.policy.durations import seconds
from whygate.core.reasons import Code
from whygate.core.records import DecisionRecord
from whygate.core.satisfying import used
from whygate.flow.ports import Admission, Answer


def admission(call: ToolCall, decision: Decision, record: DecisionRecord, task: TaskFacts | None) -> Admission:
    made = Admission(
        call=call,
        decision=decision,
        record=record,
        answer=Answer(
            id=record.id, outcome=decision.outcome, code=decision.code, note=decision.user, next=decision.next
        ),
        traceparent=f"00-{record.context.trace_id}-{ids.span_id('client', record.id)}-01",
        task_id=task.id if task is not None else "",
    )
    if decision.requires:
        made.answer = msgspec.structs.replace(made.answer, challenge=challenge_of(decision))
    return made


def challenge_of(decision: Decision) -> str:
    """What another token has to bring: all scopes of the cheapest way at once (RFC 6750 section 3.1, MCP authorization), or a
    fresher or stronger sign-in of the person behind the call (RFC 9470 section 3). Empty where that is not the matter.
    """
    params = decision.requires[0].params if decision.requires else {}
    if decision.code is Code.SCOPE_INSUFFICIENT:
        return f'error="insufficient_scope", scope="{_quoted(" ".join(params["scopes"]))}"'
    if decision.code is not Code.AUTHN_INSUFFICIENT:
        return ""
    parts = ['error="insufficient_user_authentication"']
    if params.get("acr"):
        parts.append(f'acr_values="{_quoted(" ".join(params["acr"]))}"')
    if params.get("max_age"):
        parts.append(f"max_age={seconds(params['max_age'])}")
    return ", ".join(parts)


def _quoted(text: str) -> str:
    """As a quoted string may hold it (RFC 9110 section 5.6.4)."""
    return "".join(char for char in text if " " <= char <= "~" and char not in '"\\')


def spending(decision: Decision, approval: Approval) -> Decision:
    """The permission of a narrowed call spends the approval that narrowed it, also where a standing rule permits so little."""
    claim = Claim(key=approval.id, kind="approval", value="use")
    if claim in decision.claims:
        return decision
    return msgspec.structs.replace(decision, approval=used(approval), claims=(*decision.claims, claim))


def without_record(call: ToolCall, code: Code) -> Admission:
    decision = plain(code)
    answer = Answer(id="", outcome=decision.outcome, code=code, note=decision.user, next=decision.next)
    return Admission(call=call, decision=decision, record=None, answer=answer)


def plain(code: Code, note: str = "") -> Decision:
    """A decision that no rule took part in."""
    entry = code.entry
    admin = f"{entry.meaning} {note}".strip()
    return Decision(outcome=code.outcome, code=code, admin=admin, user=entry.user, next=entry.next)
