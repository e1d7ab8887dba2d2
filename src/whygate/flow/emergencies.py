"""Waivers, break-glass with its review, and the kill switch: what people in charge do when the rules don't fit.

Rules of this file:

1. Each is named, owned and ends by itself. A break-glass names an incident, and opens a review when it ends.
2. While a review is overdue, the same team opens no other break-glass: claimed in the commit.
3. Whoever opened it does not answer its review.
4. Who may call these functions, and how they were proven, the listener checks; here it is recorded.
"""

from typing import Final

import msgspec

from whygate.core.decision import Claim
from whygate.core.events import MAX_NOTE, AgentRecord, BreakGlassRecord, ReviewRecord, Signature, WaiverRecord
from whygate.core.exceptions import BreakGlass, Review, Waiver
from whygate.core.policy.match import parse_tool
from whygate.core.policy.model import PolicySet
from whygate.core.reasons import Code
from whygate.core.records import VERSION, AnyRecord, Subject
from whygate.flow.approvals import NotAnswered
from whygate.flow.authority import Authority, still_there
from whygate.flow.ports import ClaimFailed

MAX_MINUTES: Final = 240
"""Of a break-glass: longer than a shift's incident is no emergency but a missing rule."""
MAX_DAYS: Final = 90
"""Of a waiver."""
FINDINGS: Final = ("justified", "not_justified")


class Emergency(msgspec.Struct, frozen=True, kw_only=True):
    """A break-glass as somebody wants to open it."""

    agents: tuple[str, ...]
    incident: str
    minutes: int
    reason: str
    task: str = ""
    team: str
    """Who is held to the review: the opener's first group, or their id."""
    tools: tuple[str, ...]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A waiver as somebody wants to add it."""

    agents: tuple[str, ...] = ()
    days: int
    name: str
    owner: str
    policy: str
    reason: str
    rule: str
    tools: tuple[str, ...] = ()


class Emergencies:
    """Belongs to the event loop. All raise ``NotAnswered``, and what ``Ledger.append`` raises."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    # --- break-glass ---

    async def open(
        self, wanted: Emergency, subject: Subject, proof: str, signature: Signature | None = None
    ) -> BreakGlass:
        if not wanted.agents or not wanted.tools or not wanted.incident.strip() or not wanted.reason.strip():
            raise NotAnswered(Code.REQUEST_MALFORMED, "name agents, tools, an incident and a reason")
        if not 0 < wanted.minutes <= MAX_MINUTES:
            raise NotAnswered(Code.REQUEST_MALFORMED, f"1 to {MAX_MINUTES} minutes")
        if subject.id in wanted.agents:
            raise NotAnswered(Code.APPROVAL_SELF_APPROVAL, "nobody opens it for themself")
        _selectors(wanted.tools)
        authority = self._authority
        identity = authority.new_id()
        opened = BreakGlass(
            agents=wanted.agents,
            by=subject.id,
            id=identity,
            incident=wanted.incident[:128],
            task=wanted.task,
            team=wanted.team,
            tools=wanted.tools,
            until_us=authority.now_us() + wanted.minutes * 60_000_000,
        )
        record = BreakGlassRecord(
            breakglass=opened,
            event="opened",
            id=identity,
            kind="breakglass",
            note=wanted.reason[:MAX_NOTE],
            proof=proof,
            signature=signature,
            subject=subject,
            v=VERSION,
        )
        try:
            await authority.commit(record, claims=(Claim(key=wanted.team, kind="unreviewed", value=""),))
        except ClaimFailed:
            raise NotAnswered(
                Code.BREAK_GLASS_REVIEW_OVERDUE, f"{wanted.team} owes the review of an earlier one"
            ) from None
        return opened

    async def close(self, identity: str, subject: Subject) -> Review:
        """End it now; returns the review that is owed."""
        opened = self._authority.state.breakglass.get(identity)
        if opened is None:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "there is no such break-glass open")
        records = self._authority.closing(opened, "closed", subject=subject)
        try:
            await self._authority.commit(*records, claims=(still_there(identity),))
        except ClaimFailed:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "somebody else has closed it in this moment") from None
        return self._authority.state.reviews[identity]

    async def review(self, identity: str, subject: Subject, finding: str, note: str) -> None:
        """Answer a review that is owed."""
        review = self._authority.state.reviews.get(identity)
        if review is None:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "no review of this is owed")
        if subject.id == review.by:
            raise NotAnswered(Code.APPROVAL_SELF_APPROVAL, "whoever opened it does not review it")
        if finding not in FINDINGS or not note.strip():
            raise NotAnswered(Code.REQUEST_MALFORMED, f"a finding ({', '.join(FINDINGS)}) and a note")
        record = ReviewRecord(
            event="answered",
            finding=finding,
            id=self._authority.new_id(),
            kind="review",
            note=note[:MAX_NOTE],
            review=review,
            subject=subject,
            v=VERSION,
        )
        await self._authority.commit(record)

    # --- waivers ---

    async def waive(self, wanted: Wanted, subject: Subject, policy: PolicySet | None) -> Waiver:
        rules = () if policy is None else policy.rules
        rule = next((each for each in rules if (each.policy, each.id) == (wanted.policy, wanted.rule)), None)
        if rule is None or not rule.overridable:
            raise NotAnswered(Code.REQUEST_MALFORMED, "there is no overridable rule of this name")
        if not 0 < wanted.days <= MAX_DAYS or not wanted.name or not wanted.owner or not wanted.reason.strip():
            raise NotAnswered(Code.REQUEST_MALFORMED, f"a name, an owner, a reason, and 1 to {MAX_DAYS} days")
        if any(each.name == wanted.name for each in self._authority.state.waivers.values()):
            raise NotAnswered(Code.REQUEST_MALFORMED, "there is a waiver of this name already")
        _selectors(wanted.tools)
        identity = self._authority.new_id()
        waiver = Waiver(
            agents=wanted.agents,
            by=subject.id,
            id=identity,
            name=wanted.name[:64],
            owner=wanted.owner[:128],
            policy=wanted.policy,
            rule=wanted.rule,
            tools=wanted.tools,
            until_us=self._authority.now_us() + wanted.days * 86_400_000_000,
        )
        await self._waiver(waiver, "added", subject, wanted.reason, identity)
        return waiver

    async def end_waiver(self, name: str, subject: Subject) -> Waiver:
        """By its name or id."""
        found = [each for each in self._authority.state.waivers.values() if name in {each.name, each.id}]
        if not found:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "there is no such waiver in force")
        await self._waiver(found[0], "ended", subject, "", self._authority.new_id())
        return found[0]

    async def _waiver(self, waiver: Waiver, event: str, subject: Subject, note: str, identity: str) -> None:
        record = WaiverRecord(
            event=event, id=identity, kind="waiver", note=note[:MAX_NOTE], subject=subject, v=VERSION, waiver=waiver
        )
        await self._authority.commit(record)

    # --- the kill switch ---

    async def suspend(self, agent: str, subject: Subject, note: str) -> None:
        """Nothing of it passes from the next call on; calls that wait are decided again at once, and refused."""
        await self._switch(agent, "suspended", subject, note)
        self._authority.wake_all_of(agent)

    async def resume(self, agent: str, subject: Subject, note: str) -> None:
        if agent not in self._authority.state.suspended:
            raise NotAnswered(Code.APPROVAL_UNVERIFIABLE, "it is not switched off here")
        await self._switch(agent, "resumed", subject, note)

    async def _switch(self, agent: str, event: str, subject: Subject, note: str) -> None:
        records: tuple[AnyRecord, ...] = (
            AgentRecord(
                agent=agent,
                event=event,
                id=self._authority.new_id(),
                kind="agent",
                note=note[:MAX_NOTE],
                subject=subject,
                v=VERSION,
            ),
        )
        await self._authority.commit(*records)


def _selectors(tools: tuple[str, ...]) -> None:
    for text in tools:
        try:
            parse_tool(text)
        except ValueError as wrong:
            raise NotAnswered(Code.REQUEST_MALFORMED, str(wrong)) from None
