"""Decisions that no rule took part in, and admissions: what the edges get of a decision."""

import msgspec

from whygate.core import ids
from whygate.core.approvals import Approval
from whygate.core.calls import ToolCall
from whygate.core.decision import Claim, Decision
from whygate.core.facts import TaskFacts
from whygate.core.reasons import Code
from whygate.core.records import DecisionRecord
from whygate.core.satisfying import used
from whygate.flow.ports import Admission, Answer


def admission(call: ToolCall, decision: Decision, record: DecisionRecord, task: TaskFacts | None) -> Admission:
    return Admission(
        call=call,
        decision=decision,
        record=record,
        answer=Answer(
            id=record.id, outcome=decision.outcome, code=decision.code, note=decision.user, next=decision.next
        ),
        traceparent=f"00-{record.context.trace_id}-{ids.span_id('client', record.id)}-01",
        task_id=task.id if task is not None else "",
    )


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
