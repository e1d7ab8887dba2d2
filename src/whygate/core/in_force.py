"""What is in force beside the policy, as a function of the records: questions and answers, elevations, exceptions, the kill
switch, people.

Rules of this file:

1. State changes by ``apply`` alone, and ``apply`` looks at the record and its time and at nothing else. Whoever applies the
   same records has the same state: the ledger's writer, which checks claims by it, and the flow, which decides by it.
2. A use is a decision's claim. What is spent, over, or was never there holds no claim.
3. What is over leaves: memory is bounded by what is open, and by how long a refusal is remembered.
"""

import heapq
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from whygate.core import approvals
from whygate.core.approvals import DENIAL_HOLDS_US, NOTHING, Approval, Change, Event, State
from whygate.core.decision import Claim
from whygate.core.events import (
    AgentRecord,
    ApprovalRecord,
    BreakGlassRecord,
    GrantRecord,
    Person,
    PersonRecord,
    ReviewRecord,
    WaiverRecord,
)
from whygate.core.exceptions import BreakGlass, Grant, Review, Waiver
from whygate.core.records import AnyRecord, DecisionRecord

Kept = Approval | Grant | Waiver | BreakGlass | Review | Person
KINDS: Final[dict[str, type[Kept]]] = {
    "approval": Approval,
    "grant": Grant,
    "waiver": Waiver,
    "breakglass": BreakGlass,
    "review": Review,
    "person": Person,
}
_KIND_OF: Final = {kept: kind for kind, kept in KINDS.items()}
SUSPENDED: Final = "suspended"
CLAIMS: Final = frozenset(("approval", "grant", "waiver", "breakglass", "unasked", "unreviewed"))
_USE: Final = "use"
_EVENTS: Final = frozenset(Event)


class InForce:
    """Not thread-safe: each thread has its own, from the same records."""

    def __init__(self) -> None:
        self.approvals: dict[str, Approval] = {}
        self.grants: dict[str, Grant] = {}
        self.waivers: dict[str, Waiver] = {}
        self.breakglass: dict[str, BreakGlass] = {}
        self.reviews: dict[str, Review] = {}
        self.people: dict[str, Person] = {}
        self.suspended: set[str] = set()
        self.of_principal: dict[str, dict[str, None]] = {}
        """Approvals by who asks, the oldest first."""
        self.grants_of: dict[str, dict[str, None]] = {}
        self.changed: dict[tuple[str, str], bytes | None] = {}
        """What differs from what a store last wrote, as it is stored; ``None`` for what has left. The store empties it."""
        self._asked: dict[str, str] = {}
        """Binding of each open question to its id."""
        self._ends: list[tuple[int, str]] = []

    # --- stored and restored ---

    def restore(self, kind: str, identity: str, body: bytes) -> None:
        """Take in what a store kept."""
        if kind == SUSPENDED:
            self.suspended.add(identity)
            return
        self._put(msgspec.json.decode(body, type=KINDS[kind]))
        self.changed.clear()

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        """Everything that is kept, as it is stored."""
        for kind, held in self._held().items():
            for identity, kept in held.items():
                yield kind, identity, msgspec.json.encode(kept)
        for agent in self.suspended:
            yield SUSPENDED, agent, b""

    def _held(self) -> dict[str, dict[str, Any]]:
        """By kind; each holds its own."""
        return {
            "approval": self.approvals,
            "grant": self.grants,
            "waiver": self.waivers,
            "breakglass": self.breakglass,
            "review": self.reviews,
            "person": self.people,
        }

    # --- claims ---

    def holds(self, claim: Claim, now_us: int) -> bool:
        """Whether a claim of one of the kinds in ``CLAIMS`` holds."""
        match claim.kind:
            case "approval":
                approval = self.approvals.get(claim.key)
                if claim.value.startswith("open"):
                    # With a number: so many have agreed and nobody since, or two who agree at once count as one.
                    return (
                        approval is not None
                        and approval.open(now_us)
                        and claim.value in ("open", f"open {len(approval.votes)}")
                    )
                return claim.value == _USE and approval is not None and approval.usable(now_us)
            case "grant":
                grant = self.grants.get(claim.key)
                return claim.value == _USE and grant is not None and grant.usable(now_us)
            case "waiver":
                waiver = self.waivers.get(claim.key)
                return waiver is not None and now_us < waiver.until_us
            case "breakglass":
                opened = self.breakglass.get(claim.key)
                return opened is not None and (claim.value == "there" or now_us < opened.until_us)
            case "unasked":
                known = self._asked.get(claim.key)
                return known is None or not self.approvals[known].open(now_us)
            case "unreviewed":
                return self.overdue(claim.key, now_us) is None
        return False

    def overdue(self, team: str, now_us: int) -> Review | None:
        """A review that this team owes for too long."""
        return next((each for each in self.reviews.values() if each.team == team and each.overdue(now_us)), None)

    def question(self, binding: str) -> Approval | None:
        """The open question with this binding."""
        known = self._asked.get(binding)
        return None if known is None else self.approvals.get(known)

    # --- what records change ---

    def apply(self, record: AnyRecord, now_us: int) -> None:
        if self._ends and self._ends[0][0] <= now_us:
            self._sweep(now_us)
        if isinstance(record, DecisionRecord):
            if record.approval is not None or record.grant:
                self._used(record, now_us)
        elif isinstance(record, ApprovalRecord):
            self._answered(record, now_us)
        elif isinstance(record, GrantRecord):
            self._toggle(record.grant, on=record.event == "granted")
        elif isinstance(record, WaiverRecord):
            self._toggle(record.waiver, on=record.event == "added")
        elif isinstance(record, BreakGlassRecord):
            self._toggle(record.breakglass, on=record.event == "opened")
        elif isinstance(record, ReviewRecord):
            self._toggle(record.review, on=record.event == "owed")
        elif isinstance(record, PersonRecord):
            self._toggle(record.person, on=record.event != "removed")
        elif isinstance(record, AgentRecord):
            self._suspend(record.agent, on=record.event == "suspended")

    def _used(self, record: DecisionRecord, now_us: int) -> None:
        for claim in record.claims:
            if claim.value != _USE:
                continue
            if claim.kind == "approval" and claim.key in self.approvals:
                self._move(self.approvals[claim.key], Event.USED, now_us)
            elif claim.kind == "grant" and (grant := self.grants.get(claim.key)) is not None and grant.counted:
                self._toggle(msgspec.structs.replace(grant, uses_left=grant.uses_left - 1), on=True)

    def _answered(self, record: ApprovalRecord, now_us: int) -> None:
        if record.event == "asked" and record.asked is not None:
            within_us = record.asked.within_s * 1_000_000
            made = Approval(
                answer_by_us=now_us + within_us,
                asked=record.asked,
                asked_us=now_us,
                decision=record.decision,
                id=record.approval,
                shown_digest=record.shown_digest,
                trace=record.trace,
            )
            self._put(made)
            return
        approval = self.approvals.get(record.approval)
        if approval is not None and record.event in _EVENTS:
            by = "" if record.subject is None else record.subject.id
            change = Change(
                by=by, narrowed=record.narrowed, scope=record.scope, until_us=record.until_us, uses=record.uses
            )
            self._move(approval, Event(record.event), now_us, change)

    def _move(self, approval: Approval, event: Event, now_us: int, change: Change = NOTHING) -> None:
        try:
            made = approvals.moved(approval, event, now_us, change)
        except approvals.NotAMove:
            return  # whoever wrote the record had claimed otherwise: the claim failed, or the record is another's
        spent = made.state is State.APPROVED and made.uses_left <= 0
        if spent or made.state in (State.EXPIRED, State.CANCELLED, State.REVOKED):
            self._drop(made)
        elif made.asked.entitlement and made.state is State.APPROVED:
            self._drop(made)  # what it led to is a grant
        else:
            self._put(made)

    def _toggle(self, kept: Kept, *, on: bool) -> None:
        if on:
            self._put(kept)
        else:
            self._drop(kept)

    def _suspend(self, agent: str, *, on: bool) -> None:
        (self.suspended.add if on else self.suspended.discard)(agent)
        self.changed[SUSPENDED, agent] = b"" if on else None

    def _put(self, kept: Kept) -> None:
        kind = _KIND_OF[type(kept)]
        self._held()[kind][kept.id] = kept
        self.changed[kind, kept.id] = msgspec.json.encode(kept)
        if isinstance(kept, Approval):
            self.of_principal.setdefault(kept.asked.principal, {})[kept.id] = None
            if kept.state is State.PENDING:
                self._asked[kept.binding] = kept.id
            elif self._asked.get(kept.binding) == kept.id:
                del self._asked[kept.binding]
            if kept.state is State.DENIED:
                heapq.heappush(self._ends, (kept.answered_us + DENIAL_HOLDS_US, kept.id))
        elif isinstance(kept, Grant):
            self.grants_of.setdefault(kept.principal, {})[kept.id] = None

    def _drop(self, kept: Kept) -> None:
        kind = _KIND_OF[type(kept)]
        if self._held()[kind].pop(kept.id, None) is None:
            return
        self.changed[kind, kept.id] = None
        if isinstance(kept, Approval):
            _out_of(self.of_principal, kept.asked.principal, kept.id)
            if self._asked.get(kept.binding) == kept.id:
                del self._asked[kept.binding]
        elif isinstance(kept, Grant):
            _out_of(self.grants_of, kept.principal, kept.id)

    def _sweep(self, now_us: int) -> None:
        """Forget refusals that no longer stand against anybody."""
        while self._ends and self._ends[0][0] <= now_us:
            approval = self.approvals.get(heapq.heappop(self._ends)[1])
            if approval is not None and approval.state is State.DENIED:
                self._drop(approval)


def _out_of(index: dict[str, dict[str, None]], owner: str, identity: str) -> None:
    below = index.get(owner)
    if below is not None:
        below.pop(identity, None)
        if not below:
            del index[owner]
