"""What can't be read can't open a door."""

from typing import Any

import pytest
from tests.core.policy_bench import ask, made, rule

from whygate.core.decision import Result
from whygate.core.reasons import Code, Outcome

OPEN = rule("open", "permit: {}")
SECRET = "s3cr3t-value"

UNREADABLE: list[tuple[str, dict[str, Any], str]] = [
    ("args.a > 1", {}, "`a` is absent (guard it with has())"),
    ("args.a.b > 1", {"a": {}}, "`b` is absent (guard it with has())"),
    ("args.a > 1", {"a": SECRET}, "no such operation for these types: _>_(string, int64)"),
    ("args.a.b > 1", {"a": SECRET}, "a field is read from something that is no object"),
    ("args.a[args.b] == 1", {"a": {}, "b": SECRET}, "a key is absent"),
    ("args.a[args.b] == 1", {"a": [], "b": 3}, "beyond the end of a list"),
    ("int(args.a) > 1", {"a": SECRET}, "can't be converted"),
    ("timestamp(args.a) > now", {"a": SECRET}, "can't be converted"),
    ("1 / args.a > 0", {"a": 0}, "it divides by zero"),
    ("args.a % 0 == 1", {"a": 1}, "it divides by zero"),
    ("args.a * args.a > 0", {"a": 2**53 - 1}, "too large"),
    ("args.a > 1", {"a": 10**30}, "too large"),
    ("args.a", {"a": SECRET}, "it answers with a string, which is neither true nor false"),
    ("args.a", {"a": 1}, "it answers with a int"),
    ("args.a", {"a": None}, "it answers with a null"),
    ("args.a.substring(9) == 'x'", {"a": "short"}, "a position is beyond the end of a text"),
    ("args.a.all(x, args.b in [x, x, x] || x > 0)", {"a": ["z"]}, "absent"),
    ("args.a.split('').all(x, x == 'x')", {"a": "x" * 16_000}, "it looks at too many elements"),
]


@pytest.mark.parametrize("effect", ["permit: {}", "deny: {}", "permit: {require: {scope: [x]}}"])
@pytest.mark.parametrize(("when", "args", "note"), UNREADABLE)
def test_a_rule_that_fails_refuses_the_call(when: str, args: dict[str, Any], note: str, effect: str) -> None:
    """A permit or a deny that can't be evaluated refuses, though another rule permits; and says what failed."""
    decision = ask(made(OPEN, rule("r", effect, when)), args)
    assert decision.outcome is Outcome.ERROR
    assert decision.code is Code.POLICY_EVAL_ERROR
    assert decision.determined_by is not None
    assert decision.determined_by.rule == "r"
    failed = decision.evaluations[1]
    assert failed.result is Result.ERROR
    assert note in failed.note
    assert "Because of r." in decision.admin
    assert note in decision.admin
    assert note not in decision.user


@pytest.mark.parametrize(("when", "args", "note"), UNREADABLE)
def test_no_value_of_the_call_is_told(when: str, args: dict[str, Any], note: str) -> None:
    """What failed is told in our words and the rule's names: a value or a key of the call never reaches a record."""
    decision = ask(made(rule("r", "deny: {}", when)), args)
    assert SECRET not in repr(decision)
    assert "zzz" not in repr(ask(made(rule("r", "deny: {}", "args[args.k] == 1")), {"k": "zzz"}))


def test_a_shadow_rule_that_fails_is_recorded_only() -> None:
    """A shadow policy may fail without refusing anybody: its error is on record."""
    decision = ask(made(rule("r", "deny: {}", "args.a > 1"), more="mode: shadow\n"))
    assert decision.code is Code.POLICY_NO_MATCH
    assert decision.evaluations[0].result is Result.ERROR


def test_a_rule_for_another_tool_is_not_read() -> None:
    """A rule about another tool can't refuse this call: it is not asked."""
    decision = ask(made(OPEN, rule("r", "deny: {}", "args.a > 1", tools="[mail/send]")))
    assert decision.allows
    assert len(decision.evaluations) == 1
