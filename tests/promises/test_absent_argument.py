"""An absent argument opens no door and disarms no deny."""

from typing import Any

import pytest
from tests.core.policy_bench import ask, made, rule

from whygate.core.reasons import Code, Outcome

OPEN = rule("open", "permit: {}")
LETS = "let:\n  big: args.amount > 100\n  listed: args.to in ['ann', 'bob']\n  both: big && listed\n"

# Conditions that hold, or not, only because of an argument that is not there.
READS_ABSENT = [
    "args.amount < 100",
    "args.amount > 100",
    "args.amount == 0",
    "args.amount != 5",
    "!(args.amount > 100)",
    "args.amount <= 100 && true",
    "args.amount > 100 || false",
    "big",
    "!big",
    "big || listed",
    "!big && !listed",
    "both",
    "!both",
    "args.to == ''",
    "args.to == null",
    "!(args.to in ['ann'])",
    "args.to in ['ann']",
    "size(args.to) == 0",
    "args.to.all(x, x == 'ann')",
    "args.to.exists(x, x == 'ann')",
    "!args.confirmed",
    "args.confirmed",
    "args.confirmed ? true : false",
    "args.nested.deep == 1",
    "has(args.nested.deep)",
    "true && (args.amount < 5 ? true : true)",
]


@pytest.mark.parametrize("when", READS_ABSENT)
def test_an_absent_argument_never_opens_a_door(when: str) -> None:
    """A permit that rests on an absent argument refuses, whichever way it is written."""
    decision = ask(made(rule("r", "permit: {}", when), more=LETS), {"other": 1})
    assert decision.outcome is Outcome.ERROR
    assert decision.code is Code.POLICY_EVAL_ERROR


@pytest.mark.parametrize("when", READS_ABSENT)
def test_an_absent_argument_never_disarms_a_deny(when: str) -> None:
    """A deny that rests on an absent argument refuses, though another rule permits."""
    decision = ask(made(OPEN, rule("r", "deny: {}", when), more=LETS), {"other": 1})
    assert decision.code is Code.POLICY_EVAL_ERROR


# Each side of `||` and `&&` may settle the answer alone. Then what the other side reads makes no difference, whatever
# it is; if it does make one, the rule fails. Written either way round.
SETTLED: list[tuple[str, dict[str, Any], bool]] = [
    ("args.kind == 'dry' || args.amount < 5", {"kind": "dry"}, True),
    ("args.amount < 5 || args.kind == 'dry'", {"kind": "dry"}, True),
    ("args.kind == 'dry' && args.amount < 5", {"kind": "wet"}, False),
    ("args.amount < 5 && args.kind == 'dry'", {"kind": "wet"}, False),
    ("big || args.kind == 'dry'", {"kind": "dry"}, True),
    ("args.kind == 'dry' && big", {"kind": "wet"}, False),
    ("has(args.amount) && args.amount > 100", {}, False),
    ("has(args.amount) && big", {}, False),
    ("!has(args.amount) || big", {}, True),
    ("args.?amount.orValue(0) < 5", {}, True),
]


@pytest.mark.parametrize(("when", "args", "holds"), SETTLED)
def test_what_one_side_settles_the_other_cannot_change(when: str, args: dict[str, Any], holds: bool) -> None:
    """Where one side of || or && settles the answer, every value of the absent argument gives that same answer."""
    policies = made(rule("r", "permit: {}", when), more=LETS)
    assert ask(policies, args).code is (Code.ROLE_PERMITTED if holds else Code.POLICY_NO_MATCH)
    if "has(" in when or "?" in when:
        return  # these ask for the absence itself
    for amount in (-1, 0, 4, 5, 101, 10**9):
        assert ask(policies, {**args, "amount": amount}).allows is holds


def test_null_and_empty_are_not_absent() -> None:
    """null, an empty text and 0 are values like any other: comparing null with a number fails the rule."""
    policies = made(rule("r", "permit: {}", "args.amount < 100"))
    assert ask(policies, {"amount": 0}).allows
    for amount in (None, "", "5", [], {}, True):
        assert ask(policies, {"amount": amount}).code is Code.POLICY_EVAL_ERROR


def test_a_let_is_read_only_where_it_is_needed() -> None:
    """A name whose expression fails refuses only the calls of rules that read it, where its value matters."""
    policies = made(OPEN, rule("r", "deny: {}", "tool.name == 'other' && big"), more=LETS)
    assert ask(policies).allows
    policies = made(OPEN, rule("r", "deny: {}", "tool.name == 'refund' && big"), more=LETS)
    assert ask(policies).code is Code.POLICY_EVAL_ERROR
    assert ask(policies, {"amount": 101}).code is Code.POLICY_EXPLICIT_DENY
