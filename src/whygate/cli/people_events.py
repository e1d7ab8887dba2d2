"""What people decided, told in one line and its details: records of questions and answers, elevations, exceptions, the kill
switch, and people.
"""

from typing import Final

from whygate.cli import words
from whygate.core.approvals import Asked
from whygate.core.events import (
    AgentRecord,
    ApprovalRecord,
    BreakGlassRecord,
    GrantRecord,
    PersonRecord,
    ReviewRecord,
    WaiverRecord,
)
from whygate.core.instants import from_us
from whygate.core.records import AnyRecord

PeopleRecord = (
    ApprovalRecord | GrantRecord | WaiverRecord | BreakGlassRecord | ReviewRecord | AgentRecord | PersonRecord
)
Told = tuple[str, dict[str, str]]
_CLIENT: Final = "by the agent's own client, which the rule trusts"
_UNDER: Final = {
    "agreed": "agreed to, and waits for more people",
    "expired": "ended: nobody answered, or it was not used in time",
    "cancelled": "given up by its caller",
}


def told(record: AnyRecord) -> Told | None:
    """Headline and details; ``None`` for a record of another kind. Empty details say nothing."""
    match record:
        case ApprovalRecord():
            return _approval(record)
        case GrantRecord():
            return _grant(record)
        case WaiverRecord():
            return _waiver(record)
        case BreakGlassRecord():
            return _breakglass(record)
        case ReviewRecord():
            return _review(record)
        case AgentRecord():
            switched = "switched off" if record.event == "suspended" else "switched on again"
            return f"AGENT {record.agent} {switched}", _by(record)
        case PersonRecord():
            person = record.person
            return f"PERSON {person.id} {record.event}", {
                **_by(record),
                "roles": ", ".join(person.roles),
                "groups": ", ".join(person.groups),
                "passkeys": str(len(person.passkeys)),
            }
    return None


def line(record: PeopleRecord) -> str:
    """One line, for a chain or for who follows the ledger."""
    headline, details = told(record) or ("", {})
    by = f" by {details['by']}" if details.get("by") else ""
    proof = f", {details['proven']}" if details.get("proven") else ""
    covers = f", for {details['covers']}" if details.get("covers") else ""
    changed = ", with narrower arguments" if details.get("narrowed") else ""
    return f"{headline}{by}{proof}{covers}{changed}"


def asks(asked: Asked) -> str:
    """What is asked."""
    return asked.entitlement or asked.tool


def _by(record: PeopleRecord) -> dict[str, str]:
    subject = record.subject
    proof = getattr(record, "proof", "")
    return {
        "by": "" if subject is None else subject.id,
        "proven": _CLIENT if proof == "client" else words.PROOFS.get(proof, proof),
        "note": getattr(record, "note", ""),
    }


def _approval(record: ApprovalRecord) -> Told:
    details = {**_by(record), "shown": record.shown_digest, "trace": record.trace}
    if record.asked is not None:
        asked = record.asked
        return f"APPROVAL asked: {asked.principal} for {asks(asked)}", {
            **details,
            "of": f"{', '.join(asked.approvers)} ({asked.quorum} of them)",
            "on behalf of": ", ".join(asked.behind),
            "rule": f"{asked.policy}/{asked.rule}",
            "answer within": words.duration(asked.within_s * 1_000_000),
            "arguments": asked.arguments,
            "decision": record.decision,
            "task": asked.task,
        }
    return f"APPROVAL {_UNDER.get(record.event, record.event)}", {
        **details,
        "covers": {"task": "this tool in this task", "call": "this one call"}.get(record.scope, record.scope),
        "until": words.moment(from_us(record.until_us)) if record.until_us else "",
        "narrowed": record.narrowed,
        "signed": f"with passkey {record.signature.credential}" if record.signature is not None else "",
        "approval": record.approval,
    }


def _grant(record: GrantRecord) -> Told:
    grant = record.grant
    return f"GRANT {record.event}: {grant.entitlement} to {grant.principal}", {
        **_by(record),
        "tools": " ".join(grant.tools),
        "task": grant.task or "any",
        "until": words.moment(from_us(grant.until_us)),
        "uses": words.counted(grant.uses_left, "use") if grant.counted else "not counted",
        "arguments": record.arguments,
        "approval": grant.approval or "none: policy gave it",
    }


def _waiver(record: WaiverRecord) -> Told:
    waiver = record.waiver
    return f"WAIVER {record.event}: {waiver.name} from {waiver.policy}/{waiver.rule}", {
        **_by(record),
        "owner": waiver.owner,
        "agents": ", ".join(waiver.agents) or "everybody",
        "tools": " ".join(waiver.tools) or "those of the rule",
        "until": words.moment(from_us(waiver.until_us)),
    }


def _breakglass(record: BreakGlassRecord) -> Told:
    opened = record.breakglass
    return f"BREAK-GLASS {record.event}: {opened.incident} for {', '.join(opened.agents)}", {
        **_by(record),
        "opened by": opened.by,
        "tools": " ".join(opened.tools),
        "task": opened.task,
        "until": words.moment(from_us(opened.until_us)),
    }


def _review(record: ReviewRecord) -> Told:
    owed = record.review
    return f"REVIEW {record.event}: {owed.incident}", {
        **_by(record),
        "finding": record.finding.replace("_", " "),
        "of": f"the break-glass {owed.id}, opened by {owed.by}",
        "due": words.moment(from_us(owed.due_us)),
    }
