"""What a person's answer, an elevation or an exception makes of a call, and what stands in their place where they are not."""

import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whygate.core import approvals
from whygate.core.approvals import MOVES, Answerer, Approval, Asked, Change, Event, No, NotAMove, State, may_answer
from whygate.core.calls import Tool, ToolCall
from whygate.core.decide import decide
from whygate.core.decision import Decision
from whygate.core.exceptions import BreakGlass, Grant, Waiver
from whygate.core.facts import Facts, HeldGrant, Presented
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.instants import to_us
from whygate.core.policy.model import PolicySet
from whygate.core.policy.parse import load
from whygate.core.reasons import Code

NOW = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)
NOW_US = to_us(NOW)
AGENT = Principal(id="agent:a", type=IdentityType.AI_AGENT, proof=Proof.JWT, roles=("r",))
TEXT = """
policy: p
version: 1
owner: o@example.com
agents: ["role:r"]
rules:
  - {id: ask, tools: [s/ask], permit: {require: {human: {approvers: ["group:leads"]}}}, why: Asks.}
  - {id: raise, tools: [s/raise], permit: {require: {grant: {entitlement: e, approvers: ["group:leads"], max_ttl: 5m}}}, why: Elevated.}
  - {id: both-plain, tools: [s/both], permit: {}, why: Plain.}
  - {id: both-ask, tools: [s/both], permit: {require: {human: {approvers: ["group:leads"]}}}, why: Asks.}
  - {id: soft-permit, tools: [s/soft], permit: {}, why: Plain.}
  - {id: soft, tools: [s/soft], deny: {overridable: true}, why: Not now.}
  - {id: bare, tools: [s/bare], deny: {overridable: true}, why: Not now.}
  - {id: hard-permit, tools: [s/hard], permit: {}, why: Plain.}
  - {id: hard, tools: [s/hard], deny: {}, why: Never.}
"""
POLICY: PolicySet = load({"p.yaml": TEXT})
DIGESTS = {rule.id: rule.rule_digest for rule in POLICY.rules}


def made(tool: str, **facts: Any) -> Decision:
    call = ToolCall(
        protocol="mcp",
        method="tools/call",
        server="s",
        tool=Tool(server="s", name=tool, type="mcp"),
        principal=AGENT,
    )
    return decide(call, Facts(now=NOW, task=None, **facts), POLICY)


def approval(state: State = State.APPROVED, rule: str = "ask", **changed: Any) -> Approval:
    asked = Asked(
        approvers=("group:leads",), policy="p", principal=AGENT.id, rule=rule, rule_digest=DIGESTS[rule], tool="s/ask"
    )
    whole = {
        "answer_by_us": NOW_US + 60_000_000,
        "answered_us": NOW_US - 1,
        "asked": asked,
        "asked_us": NOW_US - 2,
        "id": "a1",
        "state": state,
        "until_us": NOW_US + 60_000_000,
        "uses_left": 1,
        "votes": ("ada",),
    }
    return Approval(**{**whole, **changed})


def grant(**changed: Any) -> Grant:
    whole: dict[str, Any] = {
        "approval": "a1",
        "entitlement": "e",
        "id": "g1",
        "principal": AGENT.id,
        "rule_digest": DIGESTS["raise"],
    }
    return Grant(**{**whole, "tools": ("s/*",), "until_us": NOW_US + 1, **changed})


def held(*, fits: bool = True, **changed: Any) -> HeldGrant:
    return HeldGrant(fits=fits, grant=grant(**changed))


def test_an_approval_permits_and_is_claimed() -> None:
    """Its use is spent in the commit, and the record says who agreed."""
    decision = made("ask", approvals=(approval(),))
    assert decision.code is Code.STEP_UP_SATISFIED
    assert [(each.kind, each.key, each.value) for each in decision.claims[1:]] == [("approval", "a1", "use")]
    assert decision.approval is not None
    assert decision.approval.approvers == ("ada",)


def test_only_what_is_used_is_claimed() -> None:
    """A call that a standing rule permits spends nobody's approval."""
    decision = made("both", approvals=(approval(rule="both-ask"),))
    assert decision.code is Code.ROLE_PERMITTED
    assert [each.kind for each in decision.claims] == ["policy"]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({}, Code.STEP_UP_REQUIRED),
        ({"approvals": (approval(State.PENDING),)}, Code.STEP_UP_PENDING),
        ({"approvals": (approval(State.DENIED),)}, Code.STEP_UP_DENIED),
        (
            {"approvals": (approval(State.DENIED, answered_us=NOW_US - approvals.DENIAL_HOLDS_US),)},
            Code.STEP_UP_REQUIRED,
        ),
        ({"approvals": (approval(State.PENDING, answer_by_us=NOW_US),)}, Code.STEP_UP_REQUIRED),
        ({"approvals": (approval(uses_left=0),)}, Code.STEP_UP_REQUIRED),
        ({"approvals": (approval(until_us=NOW_US),)}, Code.STEP_UP_REQUIRED),
        ({"approvals": (approval(rule="both-ask"),)}, Code.STEP_UP_REQUIRED),
        ({"presented": Presented(approval=None, same=False)}, Code.APPROVAL_UNVERIFIABLE),
        ({"presented": Presented(approval=approval(), same=False)}, Code.STEP_UP_BINDING_MISMATCH),
        ({"presented": Presented(approval=approval(State.EXPIRED), same=True)}, Code.STEP_UP_EXPIRED),
        ({"presented": Presented(approval=approval(State.CANCELLED), same=True)}, Code.STEP_UP_DENIED),
    ],
)
def test_what_is_no_agreement_permits_nothing(facts: dict[str, Any], code: Code) -> None:
    """Silence, refusals, what is spent, over, about something else, or only said to be there."""
    decision = made("ask", **facts)
    assert decision.code is code
    assert not decision.allows
    assert bool(decision.asks) is (code is Code.STEP_UP_REQUIRED)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"grants": (held(),)}, Code.JIT_GRANT_ACTIVE),
        ({"grants": (held(approval=""),)}, Code.JIT_AUTO_APPROVED),
        ({"grants": (held(fits=False),)}, Code.JIT_OUT_OF_SCOPE),
        ({"grants": (held(until_us=NOW_US),)}, Code.JIT_GRANT_EXPIRED),
        ({"grants": (held(counted=True, uses_left=0),)}, Code.JIT_GRANT_EXPIRED),
        ({"ended": {"e": "expired"}}, Code.JIT_GRANT_EXPIRED),
        ({"ended": {"e": "revoked"}}, Code.JIT_GRANT_REVOKED),
        ({"ended": {"other": "revoked"}}, Code.JIT_GRANT_REQUIRED),
        ({"grants": (held(entitlement="other", rule_digest="sha256:0"),)}, Code.JIT_GRANT_REQUIRED),
        (
            {
                "elevations": (
                    approval(State.PENDING, asked=msgspec.structs.replace(approval().asked, entitlement="e")),
                )
            },
            Code.JIT_GRANT_PENDING,
        ),
    ],
)
def test_elevations(facts: dict[str, Any], code: Code) -> None:
    """One that covers the call elevates it; each other way has a code of its own."""
    decision = made("raise", **facts)
    assert decision.code is code
    assert decision.outcome is code.outcome


def test_exceptions_override_what_is_marked_and_nothing_else() -> None:
    """And a permit is needed all the same: an exception takes a refusal away, it gives no leave of its own."""
    waiver = Waiver(id="w1", name="w", owner="o", policy="p", rule="soft", until_us=NOW_US + 1)
    opened = BreakGlass(agents=(AGENT.id,), by="ada", id="b1", incident="I", tools=("s/*",), until_us=NOW_US + 1)
    assert made("soft", waivers=(waiver,)).code is Code.EXCEPTION_WAIVER_ACTIVE
    broken = made("soft", breakglass=(opened,))
    assert (broken.code, broken.exception and broken.exception.over) == (Code.BREAK_GLASS_INVOKED, "p/soft")
    assert made("bare", breakglass=(opened,)).code is Code.POLICY_NO_MATCH
    assert made("hard", breakglass=(opened,), waivers=(waiver,)).code is Code.POLICY_EXPLICIT_DENY
    assert made("soft", waivers=(msgspec.structs.replace(waiver, until_us=NOW_US),)).code is Code.POLICY_EXPLICIT_DENY
    others = msgspec.structs.replace(opened, agents=("agent:b",))
    assert made("soft", breakglass=(others,)).code is Code.POLICY_EXPLICIT_DENY


def test_whoever_is_switched_off_gets_nothing() -> None:
    """Before any rule, and whatever was granted."""
    assert made("both", suspended=True).code is Code.AGENT_SUSPENDED


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_move(state: State, event: Event) -> None:
    """What the table does not name is no move, and leaves nothing."""
    before = approval(state)
    if event in MOVES[state]:
        after = approvals.moved(before, event, NOW_US, Change(by="bob"))
        assert after.state is MOVES[state][event]
    else:
        with pytest.raises(NotAMove):
            approvals.moved(before, event, NOW_US)


@given(st.lists(st.sampled_from(Event), max_size=12), st.integers(1, 3))
def test_nothing_makes_more_of_an_approval(events: list[Event], uses: int) -> None:
    """Whatever happens in whatever order: it permits at most as often as it was given, and never after it has ended."""
    now = approval(State.PENDING, uses_left=0, votes=(), asked=msgspec.structs.replace(approval().asked, uses=uses))
    used, ended = 0, False
    for event in events:
        try:
            now = approvals.moved(now, event, NOW_US, Change(by="bob"))
        except NotAMove:
            continue
        assert not ended
        used += event is Event.USED
        ended = now.state not in (State.PENDING, State.APPROVED)
        assert not (ended and now.usable(NOW_US))
    assert used <= uses


def test_who_may_answer() -> None:
    """Never the caller or whoever it acts for, unless the rule names that person; nor the owner where the rule says so."""
    asked = msgspec.structs.replace(
        approval().asked, behind=("agent:b", "ada"), owner="olga", excluded=("requester", "owner")
    )

    def lead(name: str) -> Answerer:
        return Answerer(id=name, groups=("leads",))

    assert may_answer(asked, (), lead("bob")) is None
    assert may_answer(asked, (), Answerer(id="bob")) is No.NOT_NAMED
    assert may_answer(asked, (), lead("ada")) is No.SELF
    assert may_answer(asked, (), lead(AGENT.id)) is No.SELF
    assert may_answer(asked, (), lead("olga")) is No.OWNER
    assert may_answer(asked, ("bob",), lead("bob")) is No.TWICE
    behind = msgspec.structs.replace(asked, approvers=("on_behalf_of",))
    assert may_answer(behind, (), Answerer(id="ada")) is None
    assert may_answer(behind, (), lead("bob")) is No.NOT_NAMED


SIGN_IN = load(
    {
        "p.yaml": """
policy: p
version: 1
owner: o@example.com
agents: ["role:r"]
rules:
  - {id: fresh, tools: [s/fresh], permit: {require: {authn: {max_age: 10m, acr: [gold]}}}, why: Fresh.}
"""
    }
)


def signed_in(age_s: int | None, acr: str = "gold") -> Decision:
    at_us = 0 if age_s is None else NOW_US - age_s * 1_000_000
    caller = msgspec.structs.replace(AGENT, acr=acr, signed_in_us=at_us)
    tool = Tool(server="s", name="fresh", type="mcp")
    call = ToolCall(protocol="mcp", method="tools/call", server="s", tool=tool, principal=caller)
    return decide(call, Facts(now=NOW, task=None), SIGN_IN)


@pytest.mark.parametrize(("age_s", "acr"), [(None, "gold"), (601, "gold"), (10, "silver"), (10, ""), (-61, "gold")])
def test_a_sign_in_that_is_not_as_wanted_is_none(age_s: int | None, acr: str) -> None:
    """Unknown, too old, too weak, or in the future."""
    assert signed_in(age_s, acr).code is Code.AUTHN_INSUFFICIENT


@given(st.integers(0, 600), st.integers(0, 5000))
def test_an_older_sign_in_never_passes_where_a_newer_one_fails(newer: int, more: int) -> None:
    """Age only ever takes away."""
    assert signed_in(newer).code is Code.AUTHN_SATISFIED
    assert signed_in(newer + more).allows is (newer + more <= 600)
