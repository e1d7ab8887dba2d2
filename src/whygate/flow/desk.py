"""What agents may ask the gateway itself: for elevations, how a question stands, why a call of theirs was decided.

Nobody learns of another's: what is not the caller's and what is not there answer alike.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from whygate.core.approvals import Approval
from whygate.core.exceptions import Grant
from whygate.core.identity import Principal
from whygate.core.ids import is_uuid, parse_traceparent
from whygate.core.instants import from_us
from whygate.core.reasons import TABLE, Code
from whygate.core.records import DecisionRecord
from whygate.flow.approvals import NotAnswered
from whygate.flow.authority import Authority
from whygate.flow.elevations import Elevations, Wish
from whygate.flow.policies import Policies
from whygate.flow.tasks import Tasks

_UNKNOWN: Final[Mapping[str, Any]] = {"note": "There is none of this id that is yours.", "refused": True}


class OwnDesk:
    """Implements ``mcp.own_tools.Desk``."""

    def __init__(
        self,
        authority: Authority,
        policies: Policies,
        tasks: Tasks,
        find: Callable[[str], DecisionRecord | None],
        console: str,
    ) -> None:
        """``find`` reads a decision of the ledger; it may block. ``console``: where people answer."""
        self._authority, self._policies, self._tasks = authority, policies, tasks
        self._find, self._console = find, console
        self.elevations = Elevations(authority)

    async def request_elevation(
        self, principal: Principal, args: Mapping[str, Any], traceparent: str
    ) -> Mapping[str, Any]:
        policy = self._policies.current
        if policy is None:
            return _refused(Code.POLICY_INVALID)
        parent = parse_traceparent(traceparent) if traceparent else None
        task = None if parent is None else self._tasks.traced(parent.trace_id, principal)
        wish = Wish(
            arguments=args.get("arguments", {}),
            entitlement=args["entitlement"],
            minutes=args.get("minutes", 0),
            reason=args["reason"],
            tools=tuple(args.get("tools", ())),
            uses=args.get("uses", 0),
        )
        try:
            made = await self.elevations.ask(principal, wish, task, policy, "" if parent is None else parent.trace_id)
        except NotAnswered as refused:
            return _refused(refused.code)
        return self._asked(made) if isinstance(made, Approval) else _granted(made)

    async def approval_status(self, principal: Principal, approval: str) -> Mapping[str, Any]:
        found = self._authority.find(approval)
        if found is None or found.asked.principal != principal.id:
            return _UNKNOWN
        for grant in self._authority.state.grants.values():
            if grant.approval == found.id:
                return _granted(grant)
        return self._asked(found)

    async def explain_decision(self, principal: Principal, decision: str) -> Mapping[str, Any]:
        record = await asyncio.to_thread(self._find, decision) if is_uuid(decision) else None
        if record is None or record.subject.id != principal.id:
            return _UNKNOWN
        told = {
            "note": record.reason.user or "The call was permitted.",
            "decision": record.id,
            "outcome": record.outcome,
            "code": record.reason.code,
            "next": record.next,
            "tool": record.resource.id or record.resource.asked,
        }
        if record.approval is not None:
            told["approval"] = record.approval.id
        if record.requires:
            told["requires"] = ", ".join(sorted({str(each["kind"]) for each in record.requires}))
            wanted = {str(each["params"].get("entitlement")) for each in record.requires if each["kind"] == "grant"}
            told["entitlement"] = ", ".join(sorted(wanted))
        return told

    def _asked(self, approval: Approval) -> Mapping[str, Any]:
        told = {"approval": approval.id, "status": approval.state.value}
        if approval.open(self._authority.now_us()):
            told["note"] = "A person has been asked. Ask for the status again later, or make the call again."
            told["answer_by"] = from_us(approval.answer_by_us).isoformat(timespec="seconds")
            told["url"] = f"{self._console}/console/approvals/{approval.id}"
        else:
            told["note"] = f"This question is over: {approval.state.value}."
        return told


def _granted(grant: Grant) -> Mapping[str, Any]:
    return {
        "note": "The elevation is in force. Make the call again.",
        "status": "approved",
        "approval": grant.approval,
        "grant": grant.id,
        "until": from_us(grant.until_us).isoformat(timespec="seconds"),
        "uses": grant.uses_left if grant.counted else None,
    }


def _refused(code: Code) -> Mapping[str, Any]:
    entry = TABLE[code]
    return {"note": entry.user or entry.meaning, "code": code.value, "next": entry.next.value, "refused": True}
