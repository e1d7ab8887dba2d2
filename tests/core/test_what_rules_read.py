"""The view of a call's arguments that conditions are given: less than the whole, and never another answer."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from whygate.core.policy import arguments, cel
from whygate.core.policy.cel import Condition

CONDITIONS = [
    "has(args.a)",
    "has(args.a.b)",
    "!has(args.a) || args.a == 1",
    "args.a == 1",
    'args["a"] == 1',
    'args.a["b"] == "x"',
    "args.a.b == 'x'",
    "args.a.b.a > 1",
    "has(args.a.b) && args.a.b.a > 1",
    "args.?a.orValue(1) == 1",
    "args.?a.?b.orValue('x') == 'x'",
    'args[?"a"].hasValue()',
    "args.a[0] == 1",
    "args.a.size() > 1",
    "args.a.all(x, x == 1)",
    "args.a.exists(k, k == 'b')",
    "args.a.map(x, x).size() == 1",
    "size(args) == 1",
    "'a' in args",
    "args.all(k, k == 'a')",
    "type(args.a) == map",
    "type(args.b) == int",
    "args == {}",
    "args.a == args.b",
    "args.a == null || has(args.b.a)",
    "args[args.b] == 1",
    "args.b ? has(args.a) : args.a.b == 'x'",
    "[args.a, args.b].exists(x, x == 1)",
    "{'k': args.a}.k == args.b",
    "args.a.b.startsWith('x') || args.b.contains('b')",
    "cel.bind(x, args.a, x.b == 'x')",
    "cel.bind(x, args, x.a.b == 'x')",
    "[1, 2].exists(x, x == args.a) && has(args.b)",
]
SCALARS = st.sampled_from(["x", "b", "", 1, 2, 1.5, True, False, None])
VALUES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c"]), below, max_size=3),
    max_leaves=8,
)
ARGS = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)


def made(source: str) -> Condition:
    found = cel.condition(source, {})
    assert isinstance(found, Condition), (source, found)
    return found


MADE = {source: made(source) for source in CONDITIONS}


def answer(condition: Condition, args: Any) -> bool | str:
    return condition.holds(cel.activation({"args": args}))


@pytest.mark.parametrize("source", CONDITIONS)
@given(args=ARGS)
@example(args={"a": {}})
@example(args={"a": []})
@example(args={"a": None, "b": "a"})
@example(args={"a": {"b": {"a": 2, "c": ["x"]}, "c": "x"}, "b": True, "c": [1]})
def test_a_condition_answers_as_with_the_whole(source: str, args: dict[str, Any]) -> None:
    """Whatever is there, of whatever type, absent or in the way: the same answer, the same failure."""
    condition = MADE[source]
    assert answer(condition, arguments.view(args, condition.arguments)) == answer(condition, args)


@given(args=ARGS, some=st.lists(st.sampled_from(CONDITIONS), min_size=2, max_size=4))
def test_so_do_several_that_share_one_view(args: dict[str, Any], some: list[str]) -> None:
    """One view holds what any of the rules of a call reads."""
    view = arguments.view(args, arguments.all_of(MADE[source].arguments for source in some))
    for source in some:
        assert answer(MADE[source], view) == answer(MADE[source], args), source


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("has(args.a)", {"a": 1}),
        ("args.a.b == 1", {"a": {"b": 1}}),
        ("has(args.a.b) && args.c == 1", {"a": {"b": 1}, "c": 1}),
        ("args.?a.?b.orValue(1) == 1", {"a": {"b": 1}}),
        ('args["a"]["b"] == 1', {"a": {"b": 1}}),
    ],
)
def test_what_is_not_read_is_neither_seen_nor_bounded(source: str, read: dict[str, Any]) -> None:
    """Members beside what is read may be as large as they like, at each level."""
    large = "x" * (arguments.MAX_TEXT_BYTES + 1)

    def beside(value: Any) -> Any:
        return {key: beside(each) for key, each in value.items()} | {"z": large} if isinstance(value, dict) else value

    view = arguments.view(beside(read), made(source).arguments)
    assert "z" not in str(view)
