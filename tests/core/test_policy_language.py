"""The language: selectors, names, what expressions may cost, and what a set is."""

import time
from typing import Any

import pytest
from tests.core.policy_bench import AGENT, FACTS, REFUND, ask, call, made, policy, rule

from whygate.core.calls import Tool
from whygate.core.decide import decide
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.policy import match, tree
from whygate.core.policy.cases import run
from whygate.core.policy.cel import BASE, RESERVED, VARIABLES, Checked
from whygate.core.policy.model import CACHE_ENTRIES, digest_of
from whygate.core.policy.parse import DENY_CODES, load
from whygate.core.reasons import Code, Outcome
from whygate.core.strict_json import Unreadable, loads

# --- selectors ---

SELECTED = [
    ("billing/refund", True),
    ("billing/refun", False),
    ("billing/refund2", False),
    ("Billing/refund", False),
    ("billing/*", True),
    ("billing/re*", True),
    ("billing/*fund", True),
    ("billing/x*", False),
    ("bill*/refund", True),
    ("*/refund", True),
    ("*/other", False),
    ("billing2/*", False),
    ("*", True),
    ("class:spend", True),
    ("class:read", False),
    ("label:untrusted", True),
    ("label:sensitive", False),
]


@pytest.mark.parametrize(("selector", "matches"), SELECTED)
def test_what_a_tool_selector_matches(selector: str, matches: bool) -> None:
    """A selector matches a tool by its whole id, a glob, its class or a label, and by nothing else."""
    assert match.parse_tool(selector).matches(REFUND) is matches
    assert ask(made(rule("r", "permit: {}", tools=f"['{selector}']"))).allows is matches


def test_a_star_is_no_pattern_of_others() -> None:
    """In a glob only the star is special, it crosses no slash before the name, and it matches any character after it."""
    tool = Tool(server="a", name="b.c\nd/e", type="mcp")
    assert match.parse_tool("a/b.*").matches(tool)
    assert match.parse_tool("*/*e").matches(tool)
    assert not match.parse_tool("a/bXc*").matches(tool)
    assert not match.parse_tool("*/e").matches(Tool(server="a", name="b/e", type="mcp"))


@pytest.mark.parametrize(
    ("agents", "who", "matches"),
    [
        ("agent-1", {}, True),
        ("agent-2", {}, False),
        ("role:clerk", {}, True),
        ("role:Clerk", {}, False),
        ("*", {"roles": ()}, True),
        ("role:admin", {"id": "role:admin", "roles": ()}, False),
        ("clerk", {}, False),
        ("role:clerk", {"roles": ("cle", "rk")}, False),
    ],
)
def test_what_an_agent_selector_matches(agents: str, who: dict[str, Any], matches: bool) -> None:
    """An id matches that id, a role that role; an id that is spelt like a role gains no role by it."""
    text = policy(rule("r", "permit: {}")).replace('"role:clerk"', f'"{agents}"')
    principal = Principal(**{"id": "agent-1", "roles": ("clerk",), **who}, type=IdentityType.AI_AGENT, proof=Proof.JWT)
    assert decide(call(who=principal), FACTS, load({"p.yaml": text})).allows is matches


def test_what_is_remembered_is_bounded() -> None:
    """A flood of principals or tools can't fill the memory, and a forgotten pair is found again."""
    policies = made(rule("r", "permit: {}"))
    for number in range(CACHE_ENTRIES + 10):
        policies.applicable(AGENT, Tool(server="billing", name=f"t{number}", type="mcp"))
    assert len(policies._cache) <= CACHE_ENTRIES
    assert ask(policies).allows


# --- names ---


def test_a_let_means_its_expression() -> None:
    """A name stands for its expression as a whole, in scope and not as text, and names may use earlier ones."""
    lets = """\
let:
  either: args.a == 1 || args.a == 2
  x: args.a
  more: either && x > 1 # a YAML comment
  commented: |
    true // and a comment of CEL's
"""
    policies = made(rule("r", "permit: {}", "!either && args.l.all(x, x == 'q') || more && commented"), more=lets)
    assert not ask(policies, {"a": 1, "l": ["q"]}).allows
    assert ask(policies, {"a": 2, "l": ["q"]}).allows
    assert ask(policies, {"a": 3, "l": ["q"]}).allows
    assert not ask(policies, {"a": 3, "l": ["q", "r"]}).allows


def test_every_variable_is_reserved() -> None:
    """No name can hide what rules see."""
    assert {name.partition(".")[0] for name in VARIABLES} <= RESERVED


def test_a_constant_list_may_be_looped_over_inside() -> None:
    """A loop over a list written in the policy is fine inside a loop over arguments, also by its name."""
    policies = made(
        rule("r", "permit: {}", "args.to.all(t, ours.exists(d, t.endsWith(d)))"), more='let: {ours: \'["@a", "@b"]\'}\n'
    )
    assert ask(policies, {"to": ["x@a", "y@b"]}).allows
    assert not ask(policies, {"to": ["x@a", "y@c"]}).allows


@pytest.mark.parametrize("code", sorted(DENY_CODES))
def test_a_deny_gives_its_code(code: Code) -> None:
    """Every code that a rule may give refuses, with that code."""
    decision = ask(made(rule("r", f"deny: {{code: {code.value}}}")))
    assert (decision.code, decision.outcome) == (code, Outcome.BLOCKED)


# --- cost ---

HEAVY: list[tuple[str, dict[str, Any]]] = [
    ("args.l.all(x, x.matches('^(a+)+$'))", {"l": ["a" * 900 + "!"] * 256}),
    ("args.s.matches('(a+)+$')", {"s": "a" * 16_000 + "!"}),
    ("args.l.all(x, ['a', 'b', 'c', 'd'].exists(y, x.endsWith(y)))", {"l": ["z" * 900 + "a"] * 256}),
    ("args.l.all(x, x in args.l)", {"l": [str(n) for n in range(256)]}),
    ("args.l == args.l && args == args", {"l": [["x" * 100] * 8] * 200}),
    ("args.s.split('').size() > 1", {"s": "a" * 16_000}),
    ("args.s.split('').all(x, x == 'a')", {"s": "a" * 16_000}),
    ("args.l.all(x, cel.bind(y, x + x, size(y + y) > 1))", {"l": ["a" * 900] * 256}),
]


@pytest.mark.parametrize(("when", "args"), HEAVY)
def test_what_an_agent_can_make_a_rule_cost_is_bounded(when: str, args: dict[str, Any]) -> None:
    """The most expensive conditions over the largest arguments stay far below a second."""
    policies = made(rule("r", "permit: {}", when))
    spent = []
    for _ in range(3):
        begun = time.perf_counter()
        decision = ask(policies, args)
        spent.append(time.perf_counter() - begun)
        assert decision.code is not Code.ARGS_TOO_LARGE
    assert min(spent) < 0.25, spent


def test_a_hundred_nested_objects_do_not_end_the_process() -> None:
    """Arguments nested beyond the stack are refused by their depth, unread."""
    args: dict[str, Any] = {}
    for _ in range(100_000):
        args = {"a": args}
    assert ask(made(rule("r", "permit: {}", "args.a == 1")), args).code is Code.ARGS_TOO_LARGE
    with pytest.raises(Unreadable, match="deeply"):
        loads(b'{"a":' * 129 + b"1" + b"}" * 129)
    while args:  # unwound by hand: the interpreter's own way is as deep as the arguments
        args = args["a"]


# --- the compiler's tree ---


def test_the_tree_is_read_as_written() -> None:
    """Names, functions, texts and places come out of the compiler's bytes."""
    checked = BASE.check('tool.id == "x" && args.a.matches("^é+$") && {"k": [1]}.k[0] == 1')
    assert isinstance(checked, Checked)
    nodes = {(node.kind, node.name) for node in checked.tree.walk()}
    assert {("ident", "tool.id"), ("ident", "args"), ("select", "a"), ("call", "matches"), ("const", "^é+$")} <= nodes
    called = next(node for node in checked.tree.walk() if node.name == "matches")
    assert (called.offset, called.member, [child.kind for child in called.children]) == (32, True, ["select", "const"])


@pytest.mark.parametrize("data", [b"", b"\x12", b"\x12\x05\x22\x03\x2a\x01", b"\xff" * 20, b"\x12\x02\x08\x01"])
def test_other_bytes_are_no_tree(data: bytes) -> None:
    """Bytes that are no checked expression are refused: a policy is not judged by half a tree."""
    with pytest.raises(ValueError, match=r"not a checked expression|not known"):
        tree.read(data)


# --- sets ---


def test_a_digest_stands_for_names_and_texts() -> None:
    """Any change of a name, a text or a border between them gives another digest; the order of files does not."""
    texts = {"a": "1", "b": "2"}
    assert digest_of(texts) == digest_of({"b": "2", "a": "1"})
    others = [{}, {"a": "1"}, {"a": "12", "b": ""}, {"a": "2", "b": "1"}, {"a1": "", "b": "2"}, {"a": "1b2"}]
    assert len({digest_of(each) for each in (texts, *others)}) == 7


def test_a_set_keeps_its_texts_and_can_not_be_changed() -> None:
    """What is loaded stays what it was: texts by name, read-only."""
    policies = made(rule("r", "permit: {}"))
    assert list(policies.texts) == ["p.yaml"]
    assert policies.digest == digest_of(policies.texts)
    with pytest.raises(TypeError):
        policies.texts["p.yaml"] = ""  # type: ignore[index]  that it can't is the point


# --- tests in policies ---

CASES = """\
tests:
  - given: {tool: {id: billing/refund, class: spend}, args: {a: 5}}
    expect: {outcome: permitted, rule: small, code: role.permitted}
  - given: {tool: billing/refund, args: {a: 500}}
    expect: {outcome: permitted, rule: small}
  - given: {tool: billing/refund, args: {a: 5}, principal: {id: x, roles: [other]}}
    expect: {outcome: blocked, code: policy.no_match}
  - given: {tool: billing/refund, args: {a: 5}}
    expect: {outcome: blocked, rule: guard/never, code: window.closed}
"""


def test_policies_carry_their_tests() -> None:
    """A test sees the whole set, says what it expected and what it got, and where it stands."""
    own = policy(rule("small", "permit: {}", "args.a < 100"), more=CASES)
    results = run(load({"p.yaml": own}))
    assert [result.passed for result in results] == [True, False, True, False]
    assert results[1].problems == (
        "expected permitted, got blocked (policy.no_match)",
        "expected rule p/small, got no rule",
    )
    assert (results[1].case.file, results[1].case.line) == ("p.yaml", 8)
    guard = policy(rule("never", "deny: {code: window.closed}"), name="guard")
    assert [result.passed for result in run(load({"p.yaml": own, "g.yaml": guard}))] == [False, False, True, True]


def test_the_tests_of_a_shadow_policy_see_it_enforced() -> None:
    """A shadow policy can be tested before it counts; the other tests are not changed by that."""
    shadow = policy(rule("never", "deny: {code: window.closed}"), name="s", more="mode: shadow\n" + CASES[: CASES.index("  - given: {tool: billing/refund, args: {a: 500}")].replace("permitted, rule: small, code: role.permitted", "blocked, rule: never"))  # fmt: skip
    own = policy(
        rule("small", "permit: {}"), more="tests:\n  - {given: {tool: billing/refund}, expect: {outcome: permitted}}\n"
    )
    assert [result.problems for result in run(load({"a.yaml": own, "b.yaml": shadow}))] == [(), ()]


def test_the_example_policies_pass() -> None:
    """What stands in policies/ loads, and its tests pass."""
    from pathlib import Path  # only this test reads files

    from whygate.policy_files import read_folder  # the same

    results = run(load(read_folder(Path(__file__).resolve().parents[2] / "policies")))
    assert len(results) > 10
    assert [result.problems for result in results if not result.passed] == []
