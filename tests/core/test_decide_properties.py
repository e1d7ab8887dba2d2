"""Laws of deciding, tried on arbitrary calls and sets."""

import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.policy_bench import FACTS, NOW, call, policy

from whygate.core.calls import Fault, Tool, ToolCall, ToolClass
from whygate.core.decide import decide
from whygate.core.decision import Decision, Mode, Result
from whygate.core.facts import Facts
from whygate.core.identity import ANONYMOUS, IdentityType, Principal, Proof, Status
from whygate.core.policy import cel, match
from whygate.core.policy.model import PolicySet
from whygate.core.policy.parse import load
from whygate.core.reasons import Code, Outcome

CONDITIONS = (
    "",
    "true",
    "false",
    "args.a > 1",
    "args.a == args.b || has(args.c)",
    "args.a.exists(x, x == 1)",
    "'x' in args.a",
    "args.a.b.c == 1",
    "args.a.matches('^x')",
    "1 / args.a > 0",
    "args.a",
    "big && args.b == 'x'",
    "size(args) > 2",
)
LETS = {"big": "args.amount > 100"}
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"a": 2, "b": 2},
    {"a": True, "b": "x", "c": 1},
    {"a": [1, "x"], "amount": 101, "b": "x"},
    {"a": {"b": {"c": 1}}, "amount": 1},
    {"a": "xyz"},
    {"a": 0, "b": "x", "amount": 500},
)
EFFECTS = ("permit: {}", "deny: {}", "deny: {overridable: true}", "permit: {require: {authn: {max_age: 5m}}}")
TOOLS = ("billing/refund", "billing/*", "*", "class:send", "*/refund", "mail/send", "b*/re*d", "label:untrusted")
AGENTS = ("role:clerk", "agent-1", "*", "role:other", "somebody")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just("\ud800"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
)
json_args = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(["", "x", "xx"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("bc"), inner, max_size=2),
        max_leaves=4,
    ),
)
rules = st.tuples(st.sampled_from(CONDITIONS), st.sampled_from(EFFECTS), st.sampled_from(TOOLS))
documents = st.tuples(
    st.sampled_from(AGENTS), st.sampled_from(["enforce", "enforce", "shadow"]), st.lists(rules, min_size=1, max_size=4)
)
sets = st.lists(documents, max_size=3)
tools = st.builds(
    Tool,
    server=st.sampled_from(["billing", "mail", "b"]),
    name=st.sampled_from(["refund", "send", "re/d"]),
    type=st.just("mcp"),
    tool_class=st.none() | st.sampled_from(list(ToolClass)),
    labels=st.sampled_from([(), ("untrusted",), ("sensitive", "untrusted")]),
)
principals = st.builds(
    Principal,
    id=st.sampled_from(["agent-1", "somebody", "role:clerk", "*"]),
    type=st.just(IdentityType.AI_AGENT),
    proof=st.just(Proof.JWT),
    roles=st.lists(st.sampled_from(["clerk", "other", "*"]), unique=True).map(tuple),
    status=st.sampled_from(list(Status)),
)


def text_of(document: tuple[str, str, list[tuple[str, str, str]]], number: int) -> str:
    agent, mode, its_rules = document
    written = "".join(
        f"- id: r{index}\n  tools: ['{tool}']\n"
        + (f"  when: |-\n    {when}\n" if when else "")
        + f"  {effect}\n  why: Why {index}.\n"
        for index, (when, effect, tool) in enumerate(its_rules)
    )
    more = f"mode: {mode}\nlet:\n  big: args.a > 2\n"
    return policy(written, name=f"p{number}", more=more).replace('"role:clerk"', f'"{agent}"')


def set_of(chosen: list[tuple[str, str, list[tuple[str, str, str]]]]) -> PolicySet:
    return load({f"{number}.yaml": text_of(document, number) for number, document in enumerate(chosen)})


def sound(decision: Decision) -> None:
    assert decision.outcome is decision.code.outcome
    assert decision.user == decision.code.entry.user
    assert decision.admin
    assert bool(decision.claims) == bool(decision.policy_digest)
    assert decision.policy_digest or not decision.allows


@given(
    args=anything,
    principal=principals | st.just(ANONYMOUS),
    tool=tools | st.none(),
    faults=st.lists(st.sampled_from([Fault(code=code) for code in Code]), max_size=3).map(tuple),
    public=st.booleans(),
    chosen=sets,
)
@settings(max_examples=150, deadline=None)
def test_decide_is_total(
    args: Any, principal: Principal, tool: Tool | None, faults: tuple[Fault, ...], public: bool, chosen: Any
) -> None:
    """Whatever the call, decide returns a sound decision; with a fault it never allows."""
    asked = ToolCall(
        protocol="mcp", method="m", tool=tool, args=args, principal=principal, faults=faults, public=public
    )
    decision = decide(asked, FACTS, set_of(chosen))
    sound(decision)
    assert not (faults and decision.allows)
    assert not (decision.allows and (principal is ANONYMOUS or principal.status is not Status.ACTIVE))
    assert decision == decide(asked, FACTS, set_of(chosen))


@given(args=json_args, chosen=sets, tool=tools, principal=principals, task=st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_order_of_answers_holds(
    args: dict[str, Any], chosen: Any, tool: Tool, principal: Principal, task: bool
) -> None:
    """The outcome follows from the recorded evaluations by the order of precedence, and from nothing else."""
    facts = FACTS if task else Facts(now=NOW, task=None)
    decision = decide(call(args, tool=tool, who=principal), facts, set_of(chosen))
    sound(decision)
    if principal.status is not Status.ACTIVE:
        return
    counted = [e for e in decision.evaluations if e.mode is Mode.ENFORCE]
    found = {(e.effect, e.result) for e in counted}
    if any(result is Result.ERROR for _, result in found):
        assert decision.code is Code.POLICY_EVAL_ERROR
    elif ("deny", Result.MATCH) in found:
        assert decision.outcome is Outcome.BLOCKED
        assert decision.code is not Code.POLICY_NO_MATCH
    elif ("permit", Result.MATCH) in found:
        assert decision.outcome is Outcome.PERMITTED
    elif ("permit", Result.UNMET) in found:
        assert decision.outcome is Outcome.CHALLENGED
        assert len(decision.requires) == sum(e.result is Result.UNMET for e in counted)
    else:
        assert decision.code is Code.POLICY_NO_MATCH


@given(
    args=json_args,
    chosen=sets,
    deny=st.tuples(st.sampled_from(CONDITIONS), st.sampled_from(EFFECTS[1:3]), st.sampled_from(TOOLS)),
)
@settings(max_examples=150, deadline=None)
def test_another_deny_never_opens(args: dict[str, Any], chosen: Any, deny: Any) -> None:
    """Adding a deny rule to a set never turns a refusal into a permission."""
    before = decide(call(args), FACTS, set_of(chosen))
    after = decide(call(args), FACTS, set_of([*chosen, ("*", "enforce", [deny])]))
    assert not after.allows or before.allows


@given(args=json_args, chosen=sets, random=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_does_not_matter(args: dict[str, Any], chosen: Any, random: Any) -> None:
    """Files and rules in another order give the same outcome."""
    before = decide(call(args), FACTS, set_of(chosen))
    shuffled = [(agent, mode, random.sample(its, len(its))) for agent, mode, its in chosen]
    random.shuffle(shuffled)
    after = decide(call(args), FACTS, set_of(shuffled))
    assert after.outcome is before.outcome


@given(chosen=sets, principal=principals, tool=tools)
@settings(max_examples=200, deadline=None)
def test_the_index_finds_what_the_selectors_say(chosen: Any, principal: Principal, tool: Tool) -> None:
    """Looking rules up gives exactly those whose selectors match one by one, first time and from memory."""
    policies = set_of(chosen)
    expected = tuple(rule for rule in policies.rules if all(rule.selectors_for(principal, tool)))
    assert policies.applicable(principal, tool) == expected
    assert policies.applicable(principal, tool) == expected


@given(st.text(alphabet=string.ascii_lowercase + "/*:. é\n", max_size=12), tools)
def test_selectors_are_read_or_refused(text: str, tool: Tool) -> None:
    """Any text is a selector or refused with a ValueError; an exact name matches that tool alone."""
    try:
        selector = match.parse_tool(text)
    except ValueError:
        return
    matches = selector.matches(tool)
    if "*" not in text and ":" not in text:
        assert matches == (text == tool.id)


@given(conditions=st.lists(st.sampled_from(CONDITIONS[1:]), min_size=2, max_size=16), args=st.sampled_from(ARGUMENTS))
def test_conditions_asked_at_once_say_what_each_says_by_itself(conditions: list[str], args: dict[str, Any]) -> None:
    """Asking many conditions in one go gives each one's own answer, or none at all where one of them fails."""
    made = [cel.condition(source, LETS) for source in conditions]
    each = [one for one in made if isinstance(one, cel.Condition)]
    assert len(each) == len(conditions)
    asked = cel.activation({"args": args})
    alone = [one.holds(asked) for one in each]
    joint = cel.joint(each)
    assert joint is not None
    assert joint.holds(asked) == (alone if all(isinstance(answer, bool) for answer in alone) else None)
