"""The one function that decides: its gates, its order, and what it says."""

import datetime
import itertools
from typing import Any

import msgspec
import pytest
from tests.core.policy_bench import AGENT, FACTS, REFUND, TASK, ask, call, made, policy, rule

from whygate.core.calls import Fault, Tool
from whygate.core.decide import GATES, decide, explain
from whygate.core.decision import Claim, Mode, Result
from whygate.core.facts import Facts
from whygate.core.identity import ANONYMOUS, Actor, IdentityType, Status
from whygate.core.policy.model import PolicySet
from whygate.core.policy.parse import load
from whygate.core.reasons import Code, Next, Outcome

OPEN = made(rule("open", "permit: {}"))
HUMAN = "permit: {require: {human: {approvers: [group:leads]}}}"

# --- the order of rules' answers ---

ERROR = rule("e-error", "permit: {}", "args.absent > 1")
HARD = rule("d-hard", "deny: {code: args.not_allowed}")
SOFT = rule("c-soft", "deny: {code: window.closed, overridable: true}")
PERMIT = rule("b-permit", "permit: {}")
UNMET = rule("a-unmet", HUMAN)
SILENT = rule("z-silent", "permit: {}", "false")

# From the strongest answer to the weakest: each wins over all that follow, whatever their order in the file.
LADDER = [
    (ERROR, Outcome.ERROR, Code.POLICY_EVAL_ERROR, "e-error"),
    (HARD, Outcome.BLOCKED, Code.ARGS_NOT_ALLOWED, "d-hard"),
    (SOFT, Outcome.BLOCKED, Code.WINDOW_CLOSED, "c-soft"),
    (PERMIT, Outcome.PERMITTED, Code.ROLE_PERMITTED, "b-permit"),
    (UNMET, Outcome.CHALLENGED, Code.STEP_UP_REQUIRED, "a-unmet"),
    (SILENT, Outcome.BLOCKED, Code.POLICY_NO_MATCH, None),
]


@pytest.mark.parametrize("chosen", [c for n in range(1, 7) for c in itertools.combinations(range(6), n)])
def test_the_strongest_answer_decides(chosen: tuple[int, ...]) -> None:
    """Error, hard deny, overridable deny, permit, challenge, nothing: in this order, for every mix and either order."""
    _, outcome, code, name = LADDER[chosen[0]]
    for order in (chosen, chosen[::-1]):
        decision = ask(made(*(LADDER[index][0] for index in order)))
        assert (decision.outcome, decision.code) == (outcome, code)
        assert (decision.determined_by.rule if decision.determined_by else None) == name
        assert len(decision.evaluations) == len(chosen)
        assert decision.user == code.entry.user


def test_among_equals_the_first_in_the_set_decides() -> None:
    """Several denies: the first by policy id and place in the file, whatever the files are called."""
    one, two = policy(rule("x", "deny: {code: window.closed}"), name="b"), policy(HARD + SOFT, name="a")
    for texts in ({"1.yaml": one, "2.yaml": two}, {"2.yaml": one, "1.yaml": two}):
        decision = ask(load(texts))
        assert decision.determined_by is not None
        assert (decision.determined_by.policy, decision.determined_by.rule) == ("a", "d-hard")


# --- what is said ---


def test_the_deciding_rules_why_is_the_reason() -> None:
    """Operators read the rule's own why; the agent reads the code's text and never the rule's."""
    decision = ask(made(HARD))
    assert decision.admin == "Because of d-hard."
    assert decision.user == Code.ARGS_NOT_ALLOWED.entry.user
    assert decision.next is Next.FIX_CALL


def test_every_applicable_rule_is_on_record() -> None:
    """Each rule that applies leaves its answer, with policy, version, digest and the code it would give."""
    policies = made(PERMIT, UNMET, SILENT, rule("quiet", "deny: {}", "false"))
    told = {e.rule: (e.result, e.code, e.effect) for e in ask(policies).evaluations}
    assert told == {
        "b-permit": (Result.MATCH, "role.permitted", "permit"),
        "a-unmet": (Result.UNMET, "step_up.required", "permit"),
        "z-silent": (Result.NO_MATCH, "policy.no_match", "permit"),
        "quiet": (Result.NO_MATCH, "policy.no_match", "deny"),
    }
    first = ask(policies).evaluations[0]
    assert (first.policy, first.version, first.engine, first.mode) == ("p", 1, "cel", Mode.ENFORCE)
    assert first.digest == policies.policies[0].digest


def test_a_decision_claims_what_it_rests_on() -> None:
    """What allows claims the policy set and the open task; what rules refuse, the set; what a gate refuses, nothing."""
    decision = ask(OPEN)
    assert decision.claims == (
        Claim(key="", kind="policy", value=OPEN.digest),
        Claim(key="task-1", kind="task", value="open"),
    )
    assert decide(call(), Facts(now=FACTS.now, task=None), OPEN).claims == decision.claims[:1]
    assert ask(made(HARD)).claims == (Claim(key="", kind="policy", value=made(HARD).digest),)
    assert ask(made(HARD)).policy_digest == made(HARD).digest
    assert ask(OPEN, tool=None).claims == ()


def test_all_ways_out_are_listed_cheapest_first() -> None:
    """A challenge lists every alternative, the cheapest first; its code is that of the cheapest."""
    ways = {
        "break_glass": ("permit: {require: {break_glass: {incident: true}}}", Code.BREAK_GLASS_AVAILABLE),
        "grant": ("permit: {require: {grant: {entitlement: e, max_ttl: 5m, approvers: [group:x]}}}", Code.JIT_GRANT_REQUIRED),
        "human": (HUMAN, Code.STEP_UP_REQUIRED),
        "authn": ("permit: {require: {authn: {max_age: 5m}}}", Code.AUTHN_INSUFFICIENT),
        "scope": ("permit: {require: {scope: [admin]}}", Code.SCOPE_INSUFFICIENT),
    }  # fmt: skip
    chosen: list[str] = []
    for kind, (_, code) in ways.items():
        chosen.append(kind)
        decision = ask(made(*(rule(each.replace("_", "-"), ways[each][0]) for each in chosen)))
        assert decision.code is code
        assert [each.kind for each in decision.requires] == chosen[::-1]
        assert decision.outcome is Outcome.CHALLENGED
    assert decision.requires[0].params == {"scopes": ["admin"]}
    assert decision.requires[2].params == {"approvers": ["group:leads"]}


def test_a_scope_that_is_there_satisfies() -> None:
    """A required scope is satisfied by a token that has it, and only if it has all of them."""
    policies = made(rule("s", "permit: {require: {scope: [refunds]}}"))
    assert ask(policies).outcome is Outcome.PERMITTED
    policies = made(rule("s", "permit: {require: {scope: [refunds, more]}}"))
    assert ask(policies).code is Code.SCOPE_INSUFFICIENT


@pytest.mark.parametrize("text", [ERROR, HARD, SOFT, PERMIT, UNMET])
def test_shadow_changes_nothing(text: str) -> None:
    """A shadow policy is evaluated and recorded as such, and no outcome depends on it."""
    shadow = made(text, more="mode: shadow\n")
    decision = ask(shadow)
    assert decision.code is Code.POLICY_NO_MATCH
    assert [e.mode for e in decision.evaluations] == [Mode.SHADOW]
    assert decision.evaluations[0].result is not Result.NO_MATCH
    assert not shadow.visible(AGENT, REFUND)


# --- gates ---

SUSPENDED = msgspec.structs.replace(AGENT, status=Status.SUSPENDED)
RETIRED = msgspec.structs.replace(AGENT, status=Status.RETIRED)
GATED: list[tuple[Any, Code]] = [
    (call(who=ANONYMOUS), Code.AGENT_UNAUTHENTICATED),
    (call(who=SUSPENDED), Code.AGENT_SUSPENDED),
    (call(who=RETIRED), Code.AGENT_RETIRED),
    (call(tool=None), Code.TOOL_UNKNOWN),
    *((call(faults=(Fault(code=code),)), code) for code in Code
      if code.entry.outcome is not None and not code.entry.outcome.allows),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "code"), GATED)
def test_a_gate_refuses_before_any_rule(asked: Any, code: Code) -> None:
    """What a gate refuses, no rule sees: the outcome is the gate's, with its own code, and nothing is claimed."""
    decision = decide(asked, FACTS, OPEN)
    assert decision.code is code
    assert not decision.allows
    assert decision.evaluations == ()
    assert decision.claims == ()
    assert decision.policy_digest == ""
    assert code.value in decision.admin


TOO_MUCH: list[tuple[Any, Code]] = [
    ({"a": "x" * 20_000}, Code.ARGS_TOO_LARGE),
    ({"a": [0] * 257}, Code.ARGS_TOO_LARGE),
    ({"a": [["x" * 1000] * 200] * 2}, Code.ARGS_TOO_LARGE),
    ({"a": [[[[[[[[1]]]]]]]]}, Code.ARGS_TOO_LARGE),
    ({"a": {str(n): n for n in range(257)}}, Code.ARGS_TOO_LARGE),
    ({"a": b"bytes"}, Code.REQUEST_MALFORMED),
    ({"a": "\ud800"}, Code.REQUEST_MALFORMED),
]


@pytest.mark.parametrize(("args", "code"), TOO_MUCH)
def test_what_rules_read_is_bounded(args: Any, code: Code) -> None:
    """Values that a rule of this call reads are bounded before the rule is asked, however it reads them."""
    for read in ("args.a == 1", 'args["a"] == 1', "args.?a.orValue(1) == 1", "args == {}", "args.all(k, k != 'b')"):
        decision = decide(call(args), FACTS, made(rule("r", "permit: {}", read) + rule("open", "permit: {}")))
        assert decision.code is code, read
        assert decision.evaluations == ()


@pytest.mark.parametrize(("args", "code"), TOO_MUCH)
def test_what_no_rule_reads_is_not_bounded(args: Any, code: Code) -> None:
    """Arguments of megabytes beside those that rules read change nothing, and neither does asking whether they are there."""
    reading = made(rule("r", "permit: {}", "args.b.c == 1 && has(args.a) && !has(args.d)"))
    assert decide(call(args | {"b": {"c": 1, "large": args}}), FACTS, reading).code is Code.ROLE_PERMITTED
    assert decide(call(args), FACTS, OPEN).code is Code.ROLE_PERMITTED


def test_a_view_answers_as_the_whole_would() -> None:
    """What is no object where a rule takes it for one is an error, whatever it is; what is absent is absent."""
    for value in (1, "text", [1], None, {"x": 1}):
        decision = decide(call({"b": value}), FACTS, made(rule("r", "permit: {}", "args.b.c == 1")))
        assert decision.code is Code.POLICY_EVAL_ERROR
    assert decide(call({}), FACTS, made(rule("r", "permit: {}", "has(args.b.c)"))).code is Code.POLICY_EVAL_ERROR
    assert decide(call({"b": {}}), FACTS, made(rule("r", "permit: {}", "!has(args.b.c)"))).code is Code.ROLE_PERMITTED


@pytest.mark.parametrize("reverse", [False, True])
def test_the_most_fundamental_fault_decides(reverse: bool) -> None:
    """Of several faults the most fundamental gives the code, whatever the order they were found in; all are named."""
    codes = [
        Code.AGENT_TOKEN_EXPIRED,
        Code.DELEGATION_INVALID,
        Code.REQUEST_MALFORMED,
        Code.TASK_NOT_USABLE,
        Code.TOOL_UNPINNED,
        Code.ARGS_SCHEMA_INVALID,
        Code.OVERLOAD_SHED,
    ]
    for start in range(len(codes)):
        faults = [Fault(code=code, note="seen") for code in codes[start:]]
        decision = decide(call(faults=tuple(faults[::-1] if reverse else faults)), FACTS, OPEN)
        assert decision.code is codes[start]
        assert all(f"{code.value} (seen)" in decision.admin for code in codes[start:])
    assert GATES[0] == "agent"


@pytest.mark.parametrize("code", [Code.ROLE_PERMITTED, Code.JIT_GRANT_ACTIVE, Code.RESULT_MASKED])
def test_a_fault_never_permits(code: Code) -> None:
    """A fault with a code that permits, or that belongs to completions, is our own mistake: refused."""
    assert decide(call(faults=(Fault(code=code),)), FACTS, OPEN).code is Code.INTERNAL_ERROR


def test_a_public_method_needs_only_the_gates() -> None:
    """Lists are open to every authenticated, active caller, without a rule; to nobody else."""
    nothing = PolicySet({}, ())
    public = call(tool=None, public=True)
    decision = decide(public, FACTS, nothing)
    assert (decision.code, decision.outcome) == (Code.POLICY_PUBLIC_TOOL, Outcome.PERMITTED)
    assert decision.claims[0].value == nothing.digest
    for who in (ANONYMOUS, SUSPENDED, RETIRED):
        assert not decide(call(tool=None, public=True, who=who), FACTS, nothing).allows
    assert not decide(call(tool=None, public=True, faults=(Fault(code=Code.REQUEST_BATCH),)), FACTS, nothing).allows


def test_what_was_not_foreseen_refuses() -> None:
    """An error of our own is a refusal that names its kind and keeps the evaluations so far; it quotes nothing."""

    class Broken(PolicySet):
        def look_up(self, principal: Any, tool: Any) -> Any:
            raise ValueError("secret from the call")

    decision = decide(call(), FACTS, Broken({}, ()))
    assert decision.code is Code.INTERNAL_ERROR
    assert "ValueError" in decision.admin
    assert "secret" not in decision.admin


# --- what rules see ---

SEEN = [
    "args.n == 1 && args.n < 1.5 && args.f > 1 && args.f == 2.0",
    'tool.id == "billing/refund" && tool.server == "billing" && tool.name == "refund" && tool.type == "mcp"',
    'tool.class == "spend" && tool.tier == "high" && "untrusted" in tool.labels',
    'principal.id == "agent-1" && principal.type == "ai_agent" && principal.proof == "jwt" && principal.issuer == ""',
    '"clerk" in principal.roles && "refunds" in principal.scopes && principal.owner == ""',
    'principal.on_behalf_of.exists(link, link.id == "ann" && link.type == "human")',
    'task.id == "task-1" && !task.derived && task.workflow == "" && task.incident == "" && task.opened_by == ""',
    'task.opened_at == now && now.getDayOfWeek() == 1 && deployment == "test"',
    'has(args.n) && !has(args.m) && args.?m.orValue(7) == 7 && args["n"] == 1',
    'args.s.startsWith("Hé") && args.s.lowerAscii().size() == 5 && args.s.matches("^H.*o$")',
    'args.l.exists(each, each == "b") && args.o.deep.x == null',
]  # fmt: skip


@pytest.mark.parametrize("when", SEEN)
def test_a_rule_sees_the_call(when: str) -> None:
    """Every documented variable is there, with its documented type."""
    who = msgspec.structs.replace(AGENT, on_behalf_of=(Actor(id="ann", type=IdentityType.HUMAN),))
    args = {"n": 1, "f": 2.0, "s": "Héllo", "l": ["a", "b"], "o": {"deep": {"x": None}}}
    decision = ask(made(rule("r", "permit: {}", when)), args, who=who)
    assert decision.code is Code.ROLE_PERMITTED, decision.admin


def test_without_a_task_rules_about_it_fail() -> None:
    """A rule that reads the task can't be evaluated where there is none; others can."""
    policies = made(rule("r", "permit: {}", 'task.workflow == ""'))
    decision = decide(call(), Facts(now=FACTS.now, task=None), policies)
    assert decision.code is Code.POLICY_EVAL_ERROR
    assert "`task.workflow` is not known for this call" in decision.admin
    assert TASK is FACTS.task


# --- explanations ---


def test_an_explanation_is_the_decision_and_every_rule() -> None:
    """An explanation holds the same decision, and tells of each rule whether it applied and why not."""
    policies = made(PERMIT, SILENT, rule("elsewhere", "permit: {}", tools="['mail/*']"))
    ticks = itertools.count(step=1500)
    told = explain(call(), FACTS, policies, lambda: next(ticks))
    assert told.decision == ask(policies)
    lines = {line.rule: line for line in told.rules}
    assert [line.rule for line in told.rules if line.decided] == ["b-permit"]
    assert (lines["b-permit"].agent, lines["b-permit"].tool) == ("role:clerk", "billing/refund")
    assert lines["b-permit"].duration_ns == 1500
    assert (lines["elsewhere"].asked, lines["elsewhere"].agent, lines["elsewhere"].tool) == (False, "role:clerk", "")
    assert lines["z-silent"].when == "false"


def test_an_explanation_of_a_gate_asks_no_rule() -> None:
    """Where a gate refused, the rules are listed and none was asked."""
    told = explain(call(who=SUSPENDED), FACTS, made(PERMIT), lambda: 0)
    assert told.decision.code is Code.AGENT_SUSPENDED
    assert [(line.asked, line.result) for line in told.rules] == [(False, None)]


def test_visible_is_what_could_be_permitted() -> None:
    """A list shows what some enforced rule could permit and no unconditional hard deny forbids."""
    mail = Tool(server="mail", name="send", type="mcp")
    assert OPEN.visible(AGENT, REFUND)
    assert not OPEN.visible(AGENT, mail)
    assert made(UNMET).visible(AGENT, REFUND)
    assert not made(PERMIT, HARD).visible(AGENT, REFUND)
    assert made(PERMIT, SOFT).visible(AGENT, REFUND)
    assert made(PERMIT, rule("d", "deny: {}", "args.x > 1")).visible(AGENT, REFUND)


def test_time_is_what_the_facts_say() -> None:
    """The core has no clock: `now` in a rule is the facts' time, to the microsecond."""
    policies = made(rule("r", "permit: {}", 'now == timestamp("2026-01-05T12:00:00.000001Z")'))
    later = FACTS.now + datetime.timedelta(microseconds=1)
    assert decide(call(), Facts(now=later, task=TASK), policies).allows
    assert not ask(policies).allows
