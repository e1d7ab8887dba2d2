"""What was decided, and every reason why."""

from enum import StrEnum
from typing import Any

import msgspec

from whygate.core.reasons import Code, Next, Outcome


class Result(StrEnum):
    """What one rule answered."""

    MATCH = "match"
    """Its condition holds (or it has none)."""
    NO_MATCH = "no_match"
    """Its condition does not hold."""
    UNMET = "unmet"
    """A permit whose condition holds, but something it requires is missing."""
    ERROR = "error"
    """Its condition could not be evaluated."""


class Mode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"
    """Evaluated and recorded only."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule's answer. Fields are in the order of their names, as records are stored."""

    code: str
    """The reason code that this answer would give."""
    digest: str
    """Digest of the policy file's text."""
    duration_us: int = 0
    """0: not measured."""
    effect: str
    """``permit`` or ``deny``: what the rule is for."""
    engine: str = "cel"
    mode: Mode = Mode.ENFORCE
    note: str = ""
    """For operators: the error's text, or which requirement is unmet. Never a value from the call."""
    policy: str
    result: Result
    rule: str
    version: int


class RuleRef(msgspec.Struct, frozen=True, kw_only=True):
    """The rule that decided."""

    digest: str
    policy: str
    rule: str
    version: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that the decision rests on, checked again in the commit that makes it durable.

    Kinds: ``policy`` (key empty, value the digest in force), ``task`` (key the task's id, value ``open``), and those of
    ``core.in_force``: ``approval`` and ``grant`` (value ``use``: one use is spent), ``waiver``, ``breakglass``,
    ``unasked`` (no such question is open), ``unreviewed`` (the team owes no review).
    """

    key: str
    kind: str
    value: str


class ApprovalUsed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an approval bears on a call."""

    approvers: tuple[str, ...] = ()
    """Who had agreed."""
    id: str
    shown_digest: str = ""


class ExceptionUsed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What overrode a refusal."""

    id: str
    incident: str = ""
    kind: str
    """``waiver`` or ``breakglass``."""
    over: str = ""
    """The rule that was overridden, ``policy/rule``; empty where none was."""


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing before a permit with ``require`` is satisfied."""

    kind: str
    """``human``, ``grant``, ``authn``, ``scope`` or ``break_glass``."""
    params: dict[str, Any]
    """As the rule wrote it."""
    rule: str
    policy: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What ``decide`` returned. A value: nothing has happened yet."""

    outcome: Outcome
    code: Code
    admin: str
    """For operators and auditors: the deciding rule's ``why``, or what exactly was wrong."""
    user: str
    """For the agent."""
    next: Next
    evaluations: tuple[Evaluation, ...] = ()
    determined_by: RuleRef | None = None
    requires: tuple[Requirement, ...] = ()
    """For a challenge: the alternatives, each of which would satisfy it."""
    claims: tuple[Claim, ...] = ()
    policy_digest: str = ""
    """Digest of the policy set in force; empty where none was consulted."""
    approval: ApprovalUsed | None = None
    """The one that permitted it, or that a challenge or refusal is about."""
    grant: str = ""
    exception: ExceptionUsed | None = None
    asks: str = ""
    """Digest of the rule whose question to a person is to be opened; empty where none is."""

    @property
    def allows(self) -> bool:
        return self.outcome.allows
