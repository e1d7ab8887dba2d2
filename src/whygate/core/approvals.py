"""A person's answer to one question, as law: what it may become, what it covers, and who may give it.

Rules of this file:

1. Pure. An approval is a value; ``moved`` gives the next one, and what the table does not name is no move.
2. It covers what it showed and nothing else: this caller, this tool as it was defined, these arguments, this task, the rule
   that asked. Where policy allowed it and the person chose it, every call of this tool in this task for a while.
3. Nobody approves themself: neither the caller nor anybody it acts for, unless the rule names that person; nor the owner
   where the rule says so.
4. Silence refuses, and what is spent stays spent.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from whygate.core.record_parts import Part

REQUESTER: Final = "requester"
OWNER: Final = "owner"
ON_BEHALF_OF: Final = "on_behalf_of"
"""As an approver: the person on whose behalf the agent works."""
DENIAL_HOLDS_US: Final = 10 * 60 * 1_000_000
"""The same call is not asked about again for so long after a refusal: a question that comes back until it is answered
otherwise is no question."""


class State(StrEnum):
    """Where an approval stands."""

    PENDING = "pending"
    APPROVED = "approved"
    """While it has uses left and its time is not over; then it is spent or expired."""
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    """Its caller wants it no more."""
    REVOKED = "revoked"


class Event(StrEnum):
    """What happens to one. ``asked`` makes it."""

    AGREED = "agreed"
    """One of several people who must agree."""
    APPROVED = "approved"
    """The last of them."""
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REVOKED = "revoked"
    USED = "used"


MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.PENDING: {
        Event.AGREED: State.PENDING,
        Event.APPROVED: State.APPROVED,
        Event.DENIED: State.DENIED,
        Event.EXPIRED: State.EXPIRED,
        Event.CANCELLED: State.CANCELLED,
    },
    State.APPROVED: {
        Event.USED: State.APPROVED,
        Event.EXPIRED: State.EXPIRED,
        Event.CANCELLED: State.CANCELLED,
        Event.REVOKED: State.REVOKED,
    },
    State.DENIED: {},
    State.EXPIRED: {},
    State.CANCELLED: {},
    State.REVOKED: {},
}


class NotAMove(ValueError):
    """An approval in this state does not know this event."""


class Asked(Part, frozen=True, kw_only=True):
    """What is asked, of whom, and what an agreement will cover. Everything in it is in the record of the question."""

    approvers: tuple[str, ...]
    """Selectors as the rule wrote them: a person's id, ``group:…``, ``role:…``, ``on_behalf_of``."""
    arguments: str = ""
    """Keyed digest of the arguments, and of answers that came with them."""
    behind: tuple[str, ...] = ()
    """On whose behalf the caller acts: the rest of the chain."""
    definition: str = ""
    """Digest of the tool's definition, as it was pinned."""
    entitlement: str = ""
    """For an elevation: which. Empty where one call is asked about."""
    excluded: tuple[str, ...] = (REQUESTER,)
    for_task_s: int = 0
    """The approver may let it cover this tool in this task, for at most so long; 0: only this call."""
    narrow: tuple[str, ...] = ()
    """Paths of arguments that the approver may change (``args.amount``)."""
    owner: str = ""
    policy: str
    principal: str
    quorum: int = 1
    rule: str
    rule_digest: str
    """Of the rule that asks, apart from the rest of its policy."""
    task: str = ""
    tool: str = ""
    """``server/name``; of an elevation the selectors that it is asked for, joined by spaces."""
    use_within_s: int = 600
    """An agreement can be used for so long."""
    uses: int = 1
    within_s: int = 600
    """Then silence has refused."""

    @property
    def binding(self) -> str:
        """Equal for equal questions."""
        parts = (self.principal, self.tool, self.definition, self.task, self.arguments, self.rule_digest)
        return "\0".join((self.entitlement, *parts))


class Approval(Part, frozen=True, kw_only=True):
    """One question and its answer, as live state."""

    answer_by_us: int
    answered_us: int = 0
    asked: Asked
    asked_us: int
    decision: str = ""
    """The decision that asked; empty for an elevation."""
    id: str
    narrowed: str = ""
    """Keyed digest of the arguments as an approver changed them: then it is for those alone."""
    scope: str = "call"
    """What it covers: ``call`` or ``task``."""
    shown_digest: str = ""
    """Of what the approvers were shown."""
    state: State = State.PENDING
    trace: str = ""
    until_us: int = 0
    """Until when it can be used, once approved."""
    uses_left: int = 0
    votes: tuple[str, ...] = ()
    """Who agreed."""

    def usable(self, now_us: int) -> bool:
        """Whether it may permit a call now."""
        return self.state is State.APPROVED and self.uses_left > 0 and now_us < self.until_us

    def open(self, now_us: int) -> bool:
        """Whether it waits for an answer that would still count."""
        return self.state is State.PENDING and now_us < self.answer_by_us

    def held_against(self, now_us: int) -> bool:
        """Whether it is a refusal that still stands."""
        return self.state is State.DENIED and now_us < self.answered_us + DENIAL_HOLDS_US

    def covers(self, principal: str, tool: str, definition: str, task: str, arguments: str) -> bool:
        """Whether it is about such a call. Says nothing of its state, nor of the rule."""
        asked = self.asked
        if asked.entitlement or (asked.principal, asked.tool, asked.definition, asked.task) != (
            principal,
            tool,
            definition,
            task,
        ):
            return False
        return self.scope == "task" or asked.arguments == arguments

    @property
    def binding(self) -> str:
        return self.asked.binding


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What comes with an event."""

    by: str = ""
    narrowed: str = ""
    scope: str = ""
    until_us: int = 0
    uses: int = 0


NOTHING: Final = Change()


def moved(approval: Approval, event: Event, now_us: int, change: Change = NOTHING) -> Approval:
    """What ``approval`` becomes. Raises ``NotAMove``."""
    after = MOVES[approval.state].get(event)
    if after is None or (event is Event.USED and not approval.usable(now_us)):
        raise NotAMove(f"an approval that is {approval.state} can't be {event}")
    if event in (Event.AGREED, Event.APPROVED) and change.by and change.by in approval.votes:
        raise NotAMove("one person agrees once")
    made = msgspec.structs.replace(approval, state=after)
    match event:
        case Event.AGREED | Event.APPROVED:
            made = msgspec.structs.replace(made, votes=(*approval.votes, change.by), narrowed=change.narrowed)
            if event is Event.APPROVED:
                made = msgspec.structs.replace(
                    made,
                    answered_us=now_us,
                    scope=change.scope or "call",
                    until_us=change.until_us or now_us + approval.asked.use_within_s * 1_000_000,
                    uses_left=change.uses or approval.asked.uses,
                )
        case Event.USED:
            # Within a task the time is the bound; one call is counted.
            left = approval.uses_left if approval.scope == "task" else approval.uses_left - 1
            made = msgspec.structs.replace(made, uses_left=left)
        case _:
            made = msgspec.structs.replace(made, answered_us=now_us)
    return made


class Answerer(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants to answer, as the console or the API verified it."""

    id: str
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    @property
    def kinds(self) -> frozenset[str]:
        """What a rule's ``approvers`` may name."""
        return frozenset(
            (self.id, *(f"group:{each}" for each in self.groups), *(f"role:{each}" for each in self.roles))
        )


class No(StrEnum):
    """Why somebody may not answer."""

    NOT_NAMED = "not_named"
    """The rule asks others."""
    SELF = "self"
    """It is their own call, or made for them."""
    OWNER = "owner"
    """They own the agent, and the rule wants somebody else."""
    TWICE = "twice"
    """They have agreed already; the rule wants several people."""


def may_answer(asked: Asked, votes: Collection[str], who: Answerer) -> No | None:
    """Why ``who`` may not answer; ``None`` where they may.

    Does not look at the state or the time of the approval, nor at how ``who`` was proven.
    """
    kinds = who.kinds
    # The person behind the call is the last of the chain; who comes before is an actor, and asks for itself.
    named_behind = ON_BEHALF_OF in asked.approvers and who.id in asked.behind[-1:]
    if who.id == asked.principal or (who.id in asked.behind and not named_behind):
        return No.SELF
    if OWNER in asked.excluded and asked.owner and asked.owner in {who.id, *kinds}:
        return No.OWNER
    if not named_behind and kinds.isdisjoint(asked.approvers):
        return No.NOT_NAMED
    return No.TWICE if who.id in votes else None
