"""Just-in-time elevation: an agent asks for an entitlement; policy gives it, has a person asked, or refuses.

Rules of this file:

1. Only rules make entitlements. A caller that no rule offers one to is not eligible, whoever it asks.
2. What is asked is bounded by the rule: time and uses are cut to it, tools to those that the rule is about.
3. A person sees what is asked before it is given; the caller's own words are shown as that.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whygate.core.approvals import Approval, Asked, State
from whygate.core.decision import ApprovalUsed, Claim
from whygate.core.events import MAX_NOTE, ApprovalRecord, GrantRecord
from whygate.core.exceptions import Grant
from whygate.core.facts import TaskFacts
from whygate.core.identity import Principal
from whygate.core.policy import match
from whygate.core.policy.model import CompiledRule, PolicySet
from whygate.core.policy.wants import GrantWant
from whygate.core.reasons import Code
from whygate.core.records import VERSION, AnyRecord, Subject
from whygate.core.shown import Shown, TooLarge, digest, encoded
from whygate.flow.approvals import NotAnswered, granting
from whygate.flow.authority import MAX_PENDING, Authority
from whygate.flow.ports import ClaimFailed
from whygate.flow.questions import whose

MAX_REASON: Final = 1000
MAX_TOOLS: Final = 32
MAX_GRANTS: Final = 64
"""Of one caller at one time."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks for."""

    arguments: Mapping[str, Any] = {}
    """Values that arguments must have, by path; texts may use ``*``."""
    entitlement: str
    minutes: int = 0
    """0: as long as the rule gives."""
    reason: str = ""
    tools: tuple[str, ...] = ()
    """Narrower than the rule's, or empty for those."""
    uses: int = 0
    """0: as many as the rule gives."""


class Elevations:
    """Belongs to the event loop."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def held(self, principal: str = "") -> list[Grant]:
        """Elevations that are in force, of one caller or of all."""
        now_us = self._authority.now_us()
        found = self._authority.state.grants.values()
        return [each for each in found if each.usable(now_us) and principal in {"", each.principal}]

    def offered(self, policy: PolicySet, principal: Principal, entitlement: str) -> CompiledRule | None:
        """The rule that offers the entitlement to this caller."""
        for rule in policy.rules:
            offers = isinstance(rule.want, GrantWant) and rule.want.entitlement == entitlement and rule.enforced
            if offers and match.first_agent(rule.agents, principal):
                return rule
        return None

    async def ask(
        self, principal: Principal, wish: Wish, task: TaskFacts | None, policy: PolicySet, trace: str = ""
    ) -> Approval | Grant:
        """The elevation where policy gives it at once, else the question that waits for a person.

        Raises ``NotAnswered`` with ``jit.not_eligible``, ``quota.exceeded`` or ``args.too_large``, and what
        ``Ledger.append`` raises.
        """
        rule = self.offered(policy, principal, wish.entitlement)
        if rule is None or not isinstance(rule.want, GrantWant):
            raise NotAnswered(Code.JIT_NOT_ELIGIBLE, "no rule offers this entitlement to this caller")
        want, tools = rule.want, self._tools(rule, wish)
        state = self._authority.state
        pending = self._authority.pending(principal.id)
        if pending >= MAX_PENDING or len(state.grants_of.get(principal.id, ())) >= MAX_GRANTS:
            raise NotAnswered(Code.QUOTA_EXCEEDED, "too many elevations of this caller are asked for, or in force")
        covers = {
            "arguments": dict(wish.arguments),
            "ttl_s": min(wish.minutes * 60, want.max_ttl_s) if wish.minutes > 0 else want.max_ttl_s,
            "uses": min(wish.uses, want.max_uses or wish.uses) if wish.uses > 0 else want.max_uses,
        }
        shown = Shown(
            covers=covers,
            reason=wish.reason[:MAX_REASON],
            tool=" ".join(tools),
            **whose(principal, rule, task),
        )
        try:
            document = encoded(shown)
        except TooLarge as large:
            raise NotAnswered(Code.ARGS_TOO_LARGE, str(large)) from None
        asked = self._asked(principal, rule, want, (tools, task), digest(document))
        known = state.question(asked.binding)
        if known is not None and known.state is State.PENDING:
            return known
        return await self._open(asked, document, trace, auto=want.auto)

    def _tools(self, rule: CompiledRule, wish: Wish) -> tuple[str, ...]:
        own = tuple(selector.text for selector in rule.tools)
        if not wish.tools:
            return own
        if len(wish.tools) > MAX_TOOLS:
            raise NotAnswered(Code.ARGS_TOO_LARGE, f"at most {MAX_TOOLS} tools in one elevation")
        for text in wish.tools:
            try:
                match.parse_tool(text)
            except ValueError:
                raise NotAnswered(Code.ARGS_NOT_ALLOWED, "a tool is named as server/name, or with * in it") from None
        return wish.tools

    def _asked(
        self,
        principal: Principal,
        rule: CompiledRule,
        want: GrantWant,
        about: tuple[tuple[str, ...], TaskFacts | None],
        shown_digest: str,
    ) -> Asked:
        tools, task = about
        return Asked(
            approvers=want.approvers,
            arguments=shown_digest,
            behind=tuple(each.id for each in principal.on_behalf_of),
            entitlement=want.entitlement,
            excluded=want.excluded,
            owner=principal.owner,
            policy=rule.policy,
            principal=principal.id,
            quorum=want.quorum,
            rule=rule.id,
            rule_digest=rule.rule_digest,
            task="" if task is None else task.id,
            tool=" ".join(tools),
            within_s=want.within_s,
        )

    async def _open(self, asked: Asked, document: bytes, trace: str, *, auto: bool) -> Approval | Grant:
        authority = self._authority
        identity, sealed = authority.new_id(), b'{"shown":' + document + b"}"
        record = ApprovalRecord(
            approval=identity,
            asked=asked,
            event="asked",
            id=identity,
            kind="approval",
            shown_digest=digest(document),
            task=asked.task,
            trace=trace,
            v=VERSION,
        )
        if auto:
            return await self._given(asked, msgspec.json.decode(sealed), trace)
        claim = Claim(key=asked.binding, kind="unasked", value="")
        try:
            await authority.commit(record, claims=(claim,), sealed={identity: sealed})
        except ClaimFailed:
            known = authority.state.question(asked.binding)
            if known is None:
                raise
            return known
        return authority.state.approvals[identity]

    async def _given(self, asked: Asked, document: Mapping[str, Any], trace: str) -> Grant:
        """By policy itself: no question, and the elevation says so by naming none."""
        now_us = self._authority.now_us()
        nobody = Approval(answer_by_us=now_us, asked=asked, asked_us=now_us, id="", trace=trace)
        record, pattern = granting(self._authority, nobody, document)
        records: tuple[AnyRecord, ...] = (record,)
        await self._authority.commit(*records, sealed={record.id: pattern} if pattern else {})
        return record.grant

    async def revoke(self, identity: str, subject: Subject, note: str = "") -> Grant:
        """End an elevation now. Raises ``NotAnswered``."""
        grant = self._authority.state.grants.get(identity)
        if grant is None:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "there is no such elevation in force")
        record = GrantRecord(
            event="revoked",
            grant=grant,
            id=self._authority.new_id(),
            kind="grant",
            note=note[:MAX_NOTE],
            subject=subject,
            task=grant.task,
            v=VERSION,
        )
        await self._authority.commit(record)
        self._authority.wake_all_of(grant.principal)
        return grant

    @staticmethod
    def named(approval: Approval) -> ApprovalUsed:
        return ApprovalUsed(id=approval.id, shown_digest=approval.shown_digest)
