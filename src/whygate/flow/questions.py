"""A challenge becomes a question: what exactly is asked, of whom, and what they are shown."""

from typing import Any, NamedTuple

import msgspec

from whygate.core.approvals import ON_BEHALF_OF, REQUESTER, Asked
from whygate.core.calls import ToolCall
from whygate.core.decision import ApprovalUsed, Claim, Decision
from whygate.core.events import ApprovalRecord
from whygate.core.facts import TaskFacts
from whygate.core.identity import Principal
from whygate.core.policy import arguments
from whygate.core.policy.model import CompiledRule, PolicySet
from whygate.core.policy.wants import HumanWant
from whygate.core.reasons import Code
from whygate.core.records import VERSION, DecisionRecord
from whygate.core.shown import Shown, TooLarge, digest, encoded
from whygate.flow.authority import MAX_PENDING, Authority
from whygate.flow.catalogue import Catalogue
from whygate.flow.recording import arguments_digest


class Question(NamedTuple):
    """A question that is about to be asked."""

    record: ApprovalRecord
    document: bytes
    claim: Claim
    """That the same is not asked already."""

    @property
    def sealed(self) -> bytes:
        """The document as it is kept: under ``shown``, so that what an approver changes has a place beside it."""
        return b'{"shown":' + self.document + b"}"

    def about(self, decision: DecisionRecord) -> ApprovalRecord:
        """Its record, once the decision that asks has one."""
        self.record.decision = decision.id
        self.record.trace = decision.context.trace_id
        return self.record


class Questions:
    """Makes questions; asking is the commit's."""

    def __init__(self, authority: Authority, catalogue: Catalogue) -> None:
        self._authority, self._catalogue = authority, catalogue

    def open(
        self, call: ToolCall, decision: Decision, task: TaskFacts | None, policy: PolicySet | None
    ) -> tuple[Decision, Question | None]:
        """The decision with the question that it opens; or the refusal in its place, where too many wait already, or where
        nobody could be shown all of the call.
        """
        rule = None if policy is None else policy.wanting.get(decision.asks)
        if rule is None or not isinstance(rule.want, HumanWant):
            return decision, None
        if self._authority.pending(call.principal.id) >= MAX_PENDING:
            note = f"{MAX_PENDING} questions of this caller wait for people"
            return _instead(decision, Code.QUOTA_EXCEEDED, note), None
        try:
            document = encoded(self._shown(call, rule, rule.want, task))
        except TooLarge as large:
            return _instead(decision, Code.ARGS_TOO_LARGE, f"a person can't be shown all of it: {large}"), None
        asked = self._asked(call, rule, rule.want, task)
        identity, shown = self._authority.new_id(), digest(document)
        record = ApprovalRecord(
            approval=identity,
            asked=asked,
            event="asked",
            id=identity,
            kind=ApprovalRecord.KIND,
            shown_digest=shown,
            task=asked.task,
            v=VERSION,
        )
        named = ApprovalUsed(id=identity, shown_digest=shown)
        claim = Claim(key=asked.binding, kind="unasked", value="")
        return msgspec.structs.replace(decision, approval=named), Question(record, document, claim)

    def _asked(self, call: ToolCall, rule: CompiledRule, want: HumanWant, task: TaskFacts | None) -> Asked:
        tool = call.tool
        return Asked(
            approvers=want.approvers,
            arguments=arguments_digest(call, self._authority.digest),
            behind=tuple(each.id for each in call.principal.on_behalf_of),
            definition="" if tool is None else tool.definition,
            excluded=want.excluded,
            for_task_s=want.for_task_s,
            narrow=want.narrow,
            owner=call.principal.owner,
            policy=rule.policy,
            principal=call.principal.id,
            quorum=want.quorum,
            rule=rule.id,
            rule_digest=rule.rule_digest,
            task="" if task is None else task.id,
            tool="" if tool is None else tool.id,
            use_within_s=want.use_within_s,
            uses=want.uses,
            within_s=want.within_s,
        )

    def _shown(self, call: ToolCall, rule: CompiledRule, want: HumanWant, task: TaskFacts | None) -> Shown:
        tool = call.tool
        covers: dict[str, Any] = {
            "for_task_s": want.for_task_s,
            "quorum": want.quorum,
            "use_within_s": want.use_within_s,
            "uses": want.uses,
        }
        classed = None if tool is None else tool.tool_class
        return Shown(
            answers=dict(call.answers),
            arguments=call.args,
            covers=covers,
            definition="" if tool is None else tool.definition,
            description="" if tool is None else self._description(tool.server, tool.name),
            narrow=want.narrow,
            reads=() if rule.condition is None else arguments.paths_of(rule.condition.arguments),
            tier="" if tool is None else tool.tier.value,
            tool="" if tool is None else tool.id,
            tool_class="" if classed is None else classed.value,
            when="" if rule.condition is None else rule.condition.source,
            **whose(call.principal, rule, task),
        )

    def _description(self, server: str, name: str) -> str:
        pin = self._catalogue.pins.by_tool.get((server, name))
        said = None if pin is None else pin.definition.get("description")
        return said if isinstance(said, str) else ""


def whose(principal: Principal, rule: CompiledRule, task: TaskFacts | None) -> dict[str, Any]:
    """The part of a document that says who asks, for what work, and by which rule."""
    return {
        "incident": "" if task is None else task.incident,
        "on_behalf_of": tuple(each.id for each in principal.on_behalf_of),
        "owner": principal.owner,
        "policy": rule.policy,
        "requester": principal.id,
        "requester_type": principal.type.value,
        "rule": rule.id,
        "task": "" if task is None else task.id,
        "why": rule.why,
        "workflow": "" if task is None else task.workflow,
    }


def named(asked: Asked) -> tuple[str, ...]:
    """Who may answer, in words: the person behind the call by name."""
    return tuple(
        name
        for each in asked.approvers
        for name in ((asked.behind[-1:] or (ON_BEHALF_OF,)) if each == ON_BEHALF_OF else (each,))
    )


def never(asked: Asked) -> tuple[str, ...]:
    """Who may not, whatever else they are."""
    barred = [asked.principal, *asked.behind]
    if ON_BEHALF_OF in asked.approvers:
        barred = [asked.principal, *asked.behind[:-1]]
    return tuple(dict.fromkeys([*barred, *(each for each in asked.excluded if each != REQUESTER)]))


def _instead(decision: Decision, code: Code, note: str) -> Decision:
    entry = code.entry
    return msgspec.structs.replace(
        decision,
        outcome=code.outcome,
        code=code,
        admin=f"{entry.meaning} {note}",
        user=entry.user,
        next=entry.next,
        requires=(),
        asks="",
    )
