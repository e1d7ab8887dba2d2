"""People's answers: who may give which, what exactly they sign, and what follows from it.

Rules of this file:

1. An answer is durable before anybody is told. It is claimed against the question still being open: of two answers at the same
   moment one counts, and the other is told so.
2. Whoever answers was shown the very document whose digest the question carries; the digest comes back with the answer.
3. What is narrowed is narrower: a smaller number, fewer members of a list. The narrowed call is decided again.
4. Each refusal here has a code; whoever calls records it.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whygate.core import approvals, patterns
from whygate.core.approvals import Answerer, Approval, No, State
from whygate.core.decision import Claim
from whygate.core.events import MAX_NOTE, ApprovalRecord, GrantRecord, Signature
from whygate.core.exceptions import Grant
from whygate.core.reasons import Code
from whygate.core.records import VERSION, AnyRecord, Subject
from whygate.core.shown import Choice, Shown
from whygate.flow.authority import Authority
from whygate.flow.ports import ClaimFailed

_sorted_json: Final = msgspec.json.Encoder(order="sorted").encode


class NotAnswered(Exception):
    """An answer that does not count, and why."""

    def __init__(self, code: Code, note: str) -> None:
        super().__init__(note)
        self.code, self.note = code, note


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's answer as it came, proof verified by whoever took it."""

    approve: bool
    for_s: int = 0
    narrow: Mapping[str, Any] = {}
    """Other values for arguments, by path."""
    note: str = ""
    proof: str
    """``passkey``, ``oidc`` or ``client``."""
    scope: str = "call"
    shown_digest: str
    """Of the document that was in front of the person."""
    signature: Signature | None = None


_NO: Final = {
    No.NOT_NAMED: (Code.POLICY_EXPLICIT_DENY, "the rule asks others"),
    No.SELF: (Code.APPROVAL_SELF_APPROVAL, "it is your own call, or made on your behalf"),
    No.OWNER: (Code.APPROVAL_SELF_APPROVAL, "you own this agent, and the rule asks somebody else"),
    No.TWICE: (Code.APPROVAL_SELF_APPROVAL, "you have agreed already; the rule asks several people"),
}


class Approvals:
    """What the console, the API and the command line work with."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    # --- looking ---

    def waiting(self) -> list[Approval]:
        """Every question that waits, the one that ends first first."""
        found = [each for each in self._authority.state.approvals.values() if each.state is State.PENDING]
        return sorted(found, key=lambda each: each.answer_by_us)

    def in_use(self) -> list[Approval]:
        """Approvals that can still be used."""
        now_us = self._authority.now_us()
        return [each for each in self._authority.state.approvals.values() if each.usable(now_us)]

    def find(self, identity: str) -> Approval | None:
        return self._authority.find(identity)

    def shown(self, approval: Approval) -> Shown | None:
        """The document, while the question is in force; ``None`` where it is over or was erased."""
        document = self._authority.document(approval.id)
        return None if document is None else msgspec.convert(document["shown"], Shown)

    def may(self, approval: Approval, who: Answerer) -> No | None:
        """Why ``who`` may not answer it; ``None`` where they may, time and state apart."""
        return approvals.may_answer(approval.asked, approval.votes, who)

    # --- answering ---

    def choice(self, approval: Approval, given: Given) -> Choice:
        """What is signed beside the document. Raises ``NotAnswered`` for what may not be chosen."""
        return Choice(
            approve=given.approve,
            for_s=given.for_s,
            narrowed=self._digest(self._narrowed(approval, given)),
            scope=given.scope,
        )

    async def answer(self, identity: str, who: Answerer, subject: Subject, given: Given) -> Approval:
        """Take somebody's answer; returns the approval as it is then.

        Raises ``NotAnswered``, and what ``Ledger.append`` raises. Checks neither signature nor nonce: whoever took the answer
        has.
        """
        approval = self._authority.state.approvals.get(identity)
        if approval is None or not approval.open(self._authority.now_us()):
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "nobody waits for an answer to it (any more)")
        self._check(approval, who, given)
        narrowed = self._narrowed(approval, given)
        last = len(approval.votes) + 1 >= approval.asked.quorum
        event = "denied" if not given.approve else "approved" if last else "agreed"
        for_s = min(given.for_s, approval.asked.for_task_s) if given.scope == "task" else 0
        record = self._authority.event_of(
            approval,
            event,
            narrowed=self._digest(narrowed),
            note=given.note[:MAX_NOTE],
            proof=given.proof,
            scope=given.scope if event == "approved" else "",
            shown_digest=given.shown_digest,
            signature=given.signature,
            subject=subject,
            until_us=self._authority.now_us() + for_s * 1_000_000 if for_s and event == "approved" else 0,
        )
        more, sealed = self._following(approval, record, narrowed)
        claim = Claim(key=approval.id, kind="approval", value=f"open {len(approval.votes)}")
        try:
            await self._authority.commit(record, *more, claims=(claim,), sealed=sealed)
        except ClaimFailed:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "somebody else has answered in this moment") from None
        found = self._authority.find(identity)
        return approval if found is None else found

    def _check(self, approval: Approval, who: Answerer, given: Given) -> None:
        no = approvals.may_answer(approval.asked, approval.votes, who)
        # Whoever is asked may refuse, though they have agreed before; nobody else may do either.
        if no is not None and not (no is No.TWICE and not given.approve):
            raise NotAnswered(*_NO[no])
        if given.shown_digest != approval.shown_digest:
            raise NotAnswered(Code.STEP_UP_BINDING_MISMATCH, "this is not what was asked")
        if given.scope not in {"call", "task"} or (
            given.scope == "task" and not 0 < given.for_s <= approval.asked.for_task_s
        ):
            raise NotAnswered(
                Code.POLICY_EXPLICIT_DENY, "the rule lets an answer cover this one call only, or less time"
            )
        if given.scope == "task" and (given.narrow or approval.narrowed or not approval.asked.task):
            raise NotAnswered(Code.POLICY_EXPLICIT_DENY, "changed arguments are for one call")

    def _narrowed(self, approval: Approval, given: Given) -> dict[str, Any] | None:
        """The arguments as changed; ``None`` where nothing is changed. Raises ``NotAnswered``."""
        before = self._earlier(approval)
        if not given.narrow:
            return before
        document = self.shown(approval)
        if document is None:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "what was shown is not there any more")
        args = document.arguments if before is None else before
        for path, value in given.narrow.items():
            if path not in approval.asked.narrow:
                raise NotAnswered(Code.ARGS_NOT_ALLOWED, f"the rule does not let {path} be changed")
            if not patterns.has(args, path) or not patterns.narrower(patterns.at(args, path), value):
                raise NotAnswered(Code.ARGS_NOT_ALLOWED, f"{path} may only become less")
        return patterns.changed(args, given.narrow)

    def _earlier(self, approval: Approval) -> dict[str, Any] | None:
        """What somebody who agreed before has changed: it stands for those who come after."""
        changed = (self._authority.document(approval.id) or {}).get("narrowed")
        return changed if isinstance(changed, dict) else None

    def _digest(self, narrowed: Mapping[str, Any] | None) -> str:
        return "" if narrowed is None else self._authority.digest(_sorted_json(narrowed))

    def _following(
        self, approval: Approval, record: ApprovalRecord, narrowed: Mapping[str, Any] | None
    ) -> tuple[tuple[AnyRecord, ...], dict[str, bytes]]:
        """What else is written with an answer: the elevation that it gives, the arguments that it changed."""
        document = self._authority.document(approval.id)
        if record.event == "approved" and approval.asked.entitlement:
            granted, pattern = granting(self._authority, approval, document or {})
            return (granted,), {granted.id: pattern} if pattern else {}
        if narrowed is not None and record.event in {"approved", "agreed"}:
            return (), {approval.id: _sorted_json({**(document or {}), "narrowed": narrowed})}
        return (), {}

    async def revoke(self, identity: str, subject: Subject, note: str = "") -> None:
        """Take an agreement back before it is used. Raises ``NotAnswered``."""
        approval = self._authority.state.approvals.get(identity)
        if approval is None or approval.state is not State.APPROVED:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "there is no such approval to revoke")
        await self._authority.commit(
            self._authority.event_of(approval, "revoked", note=note[:MAX_NOTE], subject=subject)
        )


def granting(authority: Authority, approval: Approval, document: Mapping[str, Any]) -> tuple[GrantRecord, bytes]:
    """The record of the elevation that was asked for, and the pattern it is bound to (empty: none)."""
    asked = approval.asked
    covers = document.get("shown", {}).get("covers", {})
    pattern = covers.get("arguments") or {}
    identity, uses = authority.new_id(), int(covers.get("uses", 0))
    grant = Grant(
        approval=approval.id,
        counted=uses > 0,
        entitlement=asked.entitlement,
        id=identity,
        patterned=bool(pattern),
        principal=asked.principal,
        rule_digest=asked.rule_digest,
        task=asked.task,
        tools=tuple(asked.tool.split()),
        until_us=authority.now_us() + int(covers["ttl_s"]) * 1_000_000,
        uses_left=uses,
    )
    sealed = _sorted_json({"arguments": pattern}) if pattern else b""
    record = GrantRecord(
        arguments=authority.digest(_sorted_json(pattern)) if pattern else "",
        event="granted",
        grant=grant,
        id=identity,
        kind="grant",
        task=asked.task,
        trace=approval.trace,
        v=VERSION,
    )
    return record, sealed
