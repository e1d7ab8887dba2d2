"""Whether what a permit requires is there, and what stands in its place where it is not. A part of ``decide``.

Only what is used is claimed: a call that a standing rule permits spends no approval.
"""

from typing import Final

import msgspec

from whygate.core.approvals import Approval, State
from whygate.core.calls import Tool, ToolCall
from whygate.core.decision import ApprovalUsed, Claim, ExceptionUsed
from whygate.core.exceptions import BreakGlass
from whygate.core.facts import Facts
from whygate.core.instants import to_us
from whygate.core.policy.model import CompiledRule
from whygate.core.policy.wants import AuthnWant, GrantWant
from whygate.core.reasons import Code


class Met(msgspec.Struct, frozen=True):
    """How a permit came to hold. The lower ``rank`` goes first."""

    rank: int
    code: Code
    claims: tuple[Claim, ...] = ()
    approval: ApprovalUsed | None = None
    grant: str = ""
    exception: ExceptionUsed | None = None


STANDING: Final = Met(0, Code.ROLE_PERMITTED)
_TOKEN: Final = Met(1, Code.ROLE_PERMITTED)
_SIGNED_IN: Final = Met(1, Code.AUTHN_SATISFIED)
_LEEWAY_US: Final = 60 * 1_000_000
"""A sign-in that lies further in the future is none: clocks that differ so much are no clocks."""
_USE: Final = "use"


def met(rule: CompiledRule, call: ToolCall, tool: Tool, facts: Facts) -> Met | None:
    """How the requirement of a permit whose condition holds is satisfied; ``None`` where it is not."""
    wanted = rule.requirement
    if wanted is None:
        return STANDING
    match wanted.kind:
        case "scope":
            return _TOKEN if rule.scopes.issubset(call.principal.scopes) else None
        case "authn":
            return _SIGNED_IN if _signed_in(rule, call, facts) else None
        case "human":
            return _approved(rule, facts)
        case "grant":
            return _granted(rule, facts)
        case "break_glass":
            opened = _broken(call, tool, facts)
            return None if opened is None else _invoked(opened)
    return None


def _signed_in(rule: CompiledRule, call: ToolCall, facts: Facts) -> bool:
    """Whether the person behind the call signed in as the rule wants it (RFC 9470). What a token does not say is not so."""
    want, caller = rule.want, call.principal
    if not isinstance(want, AuthnWant) or not caller.signed_in_us:
        return False
    if want.acr and caller.acr not in want.acr:
        return False
    age_us = to_us(facts.now) - caller.signed_in_us
    return age_us >= -_LEEWAY_US and (not want.max_age_s or age_us <= want.max_age_s * 1_000_000)


def _approved(rule: CompiledRule, facts: Facts) -> Met | None:
    now_us = to_us(facts.now) if facts.approvals else 0
    for each in facts.approvals:
        if each.asked.rule_digest == rule.rule_digest and each.usable(now_us):
            claim = Claim(key=each.id, kind="approval", value=_USE)
            return Met(2, Code.STEP_UP_SATISFIED, (claim,), used(each))
    return None


def used(approval: Approval) -> ApprovalUsed:
    """An approval as the record of a decision names it."""
    return ApprovalUsed(approvers=approval.votes, id=approval.id, shown_digest=approval.shown_digest)


def _granted(rule: CompiledRule, facts: Facts) -> Met | None:
    if not isinstance(rule.want, GrantWant):
        return None
    now_us = to_us(facts.now) if facts.grants else 0
    for held in facts.grants:
        grant = held.grant
        if held.fits and grant.rule_digest == rule.rule_digest and grant.usable(now_us):
            code = Code.JIT_GRANT_ACTIVE if grant.approval else Code.JIT_AUTO_APPROVED
            return Met(3, code, (Claim(key=grant.id, kind="grant", value=_USE),), grant=grant.id)
    return None


def _broken(call: ToolCall, tool: Tool, facts: Facts) -> BreakGlass | None:
    if not facts.breakglass:
        return None
    now_us, task = to_us(facts.now), "" if facts.task is None else facts.task.id
    return next((each for each in facts.breakglass if each.covers(call.principal.id, task, tool, now_us)), None)


def _invoked(opened: BreakGlass, over: str = "") -> Met:
    exception = ExceptionUsed(id=opened.id, incident=opened.incident, kind="breakglass", over=over)
    claim = Claim(key=opened.id, kind="breakglass", value="open")
    return Met(4, Code.BREAK_GLASS_INVOKED, (claim,), exception=exception)


def overridden(rule: CompiledRule, call: ToolCall, tool: Tool, facts: Facts) -> Met | None:
    """The exception that overrides a deny; ``None`` where none does, or where the rule can't be overridden."""
    if not rule.overridable:
        return None
    over = f"{rule.policy}/{rule.id}"
    if facts.waivers:
        now_us = to_us(facts.now)
        for each in facts.waivers:
            if each.covers(call.principal.id, tool, rule.policy, rule.id, now_us):
                exception = ExceptionUsed(id=each.id, kind="waiver", over=over)
                claim = Claim(key=each.id, kind="waiver", value="open")
                return Met(4, Code.EXCEPTION_WAIVER_ACTIVE, (claim,), exception=exception)
    opened = _broken(call, tool, facts)
    return None if opened is None else _invoked(opened, over)


def unmet(rule: CompiledRule, facts: Facts) -> tuple[Code, ApprovalUsed | None]:
    """The code of a challenge by this rule, or of the refusal in its place, and the approval that it is about."""
    kind = "" if rule.requirement is None else rule.requirement.kind
    if kind == "human":
        return _unanswered(rule, facts)
    if kind == "grant" and isinstance(rule.want, GrantWant):
        return _ungranted(rule.want, facts)
    return rule.code, None


_ENDED: Final = {
    State.CANCELLED: Code.STEP_UP_DENIED,
    State.DENIED: Code.STEP_UP_DENIED,
    State.EXPIRED: Code.STEP_UP_EXPIRED,
    State.REVOKED: Code.STEP_UP_DENIED,
}


def _unanswered(rule: CompiledRule, facts: Facts) -> tuple[Code, ApprovalUsed | None]:
    presented = facts.presented
    if presented is not None and presented.approval is None:
        return Code.APPROVAL_UNVERIFIABLE, ApprovalUsed(id=presented.id) if presented.id else None
    if presented is not None and presented.approval is not None:
        if not presented.same:
            return Code.STEP_UP_BINDING_MISMATCH, used(presented.approval)
        ended = _ENDED.get(presented.approval.state)
        if ended is not None:
            return ended, used(presented.approval)
    now_us = to_us(facts.now)
    for each in facts.approvals:
        if each.asked.rule_digest == rule.rule_digest:
            if each.held_against(now_us):
                return Code.STEP_UP_DENIED, used(each)
            if each.open(now_us):
                return Code.STEP_UP_PENDING, used(each)
    return Code.STEP_UP_REQUIRED, None


def _ungranted(want: GrantWant, facts: Facts) -> tuple[Code, ApprovalUsed | None]:
    now_us = to_us(facts.now)
    held = [each for each in facts.grants if each.grant.entitlement == want.entitlement]
    if any(each.grant.usable(now_us) for each in held):
        return Code.JIT_OUT_OF_SCOPE, None
    for asked in facts.elevations:
        if asked.asked.entitlement == want.entitlement and asked.open(now_us):
            return Code.JIT_GRANT_PENDING, used(asked)
    ended = facts.ended.get(want.entitlement, "")
    if ended == "revoked":
        return Code.JIT_GRANT_REVOKED, None
    return (Code.JIT_GRANT_EXPIRED if held or ended else Code.JIT_GRANT_REQUIRED), None
