"""Rules are held to the definitions that are pinned: a typing error in a condition is found where it is written."""

from typing import Any

import pytest
from tests.core.policy_bench import made, rule

from whygate.core.calls import Tool, ToolClass
from whygate.core.pins import Pin, pin
from whygate.core.policy import uses
from whygate.core.policy.cases import run
from whygate.core.policy.fitting import Fitting, Found


def tool(tool_id: str, tool_class: ToolClass | None = None, **properties: Any) -> tuple[Tool, Pin]:
    server, _, name = tool_id.partition("/")
    schema = {"type": "object", "properties": properties, "$defs": {"P": {"properties": {"zip": {"type": "string"}}}}}
    found = pin(server, {"name": name, "inputSchema": schema}, by="", at="")
    return Tool(server=server, name=name, type="mcp", tool_class=tool_class), found


TEXT, INT = {"type": "string"}, {"type": "integer"}
TOOLS = [
    tool(
        "billing/refund",
        ToolClass.SPEND,
        amount=INT,
        price={"type": "number"},
        to={"type": "array", "items": TEXT},
        currency={"enum": ["EUR", "USD"]},
        note={"anyOf": [TEXT, {"type": "null"}]},
        customer={"type": "object", "properties": {"name": TEXT, "home": {"$ref": "#/$defs/P"}}},
        anything={},
        **{"user-id": TEXT},
    ),
    tool("billing/ping", host=TEXT),
    tool("mail/send", ToolClass.SEND, to={"type": "array", "items": TEXT}),
]
REFUND = "[billing/refund]"
RIGHT = [
    "args.amount > 5 && args.amount > 5.5 && args.price < 3",
    'args.note == null || args.note.startsWith("x")',
    'args["user-id"] == principal.id && args.anything.x.y > 3',
    'args.to.all(r, r.endsWith("x")) && args.to[0] == "x"',
    "has(args.amount) && args.?amount.orValue(3) > 2",
    'args.customer.home.zip == "1" && args["customer"]["name"] == "y"',
    'args.size() > 3 && "amount" in args && args.all(k, k != "amout")',
    'type(args.amount) == int && string(args.amount) == "5"',
    '"args.amout" != args.currency // args.amout',
    "args[tool.name] == 3",
]
WRONG = [
    ("args.amout > 5", "args.amout", "there is no argument `amout`: did you mean `amount`?"),
    ('args.amount == "5"', "==", "no matching overload for '_==_' applied to '(int, string)'"),
    ('args.price == "5"', "==", "no matching overload"),
    ("args.note == 3", "==", "no matching overload"),
    ('args.to.endsWith("x")', '("x")', "'endsWith' applied to '(list(string), string)'"),
    ("args.to.all(r, r > 3)", "> 3", "no matching overload"),
    ("args.currency in [1, 2]", "in [", "no matching overload"),
    ('args.customer.nam == "x"', "args.cust", "no argument `nam` of `args.customer`: did you mean `name`?"),
    ('args.customer.home.zap == "x"', "args.cust", "no argument `zap` of `args.customer.home`: did you mean `zip`?"),
    ('args.?amount.orValue("x") == "x"', '("x")', "orValue"),
    ("has(args.amout) && args.amount > 3", "has(", "no argument `amout`"),
    ("args.?amout.orValue(3) > 3", "args.?amout", "no argument `amout`"),
]  # fmt: skip


def look(when: str, tools: str = REFUND, more: str = "") -> Found:
    return Fitting(TOOLS).look_at(made(rule("r", "permit: {}", when, tools), more=more))


@pytest.mark.parametrize("when", RIGHT)
def test_what_can_be_right_is_not_told_of(when: str) -> None:
    """Numbers of either kind, values that may be null, maps read as maps, texts and comments that look like arguments."""
    assert look(when) == Found()


@pytest.mark.parametrize(("when", "place", "message"), WRONG)
def test_what_can_not_be_right_is_an_error_with_its_place(when: str, place: str, message: str) -> None:
    """A misspelt argument, and one of another type than the rule takes it for, with line and column in the file."""
    found = look(when)
    assert found.warnings == ()
    first = found.errors[0]
    assert message in first.message
    assert "(as billing/refund is pinned)" in first.message
    assert (first.file, first.line) == ("p.yaml", 9)
    assert when[first.column - 7 :].startswith(place)


def test_an_error_in_a_name_is_told_where_the_name_is_defined() -> None:
    """Through one name and another, the place is the misspelt word's."""
    found = look("far", more="let:\n  near: args.amout > 3\n  far: near && args.amount > 1\n")
    assert [(each.line, each.column) for each in found.errors] == [(6, 9)]


def test_tools_that_are_named_and_tools_that_are_anywhere() -> None:
    """Named, or by their server, every tool must fit; elsewhere not to fit one is a warning, and to fit none an error."""
    assert "billing/refund" in look('args.host == "x"', '["billing/*"]').errors[0].message
    assert look('has(args.host) && args.host == "x"', '["billing/*"]') == Found()
    everywhere = look('args.host == "x"', '["*"]')
    assert everywhere.errors == ()
    assert "billing/refund, mail/send" in everywhere.warnings[0].message
    assert look('args.hots == "x"', '["*"]').errors != ()
    assert look('args.amount == "x"', '["class:spend"]').errors != ()
    assert look('args.host == "x"', "[billing/ping, billing/refund]").errors != ()
    assert look('has(args.host) && args.host == "x"', "[billing/ping, billing/refund]") == Found()
    assert look("args.whatever > 3", "[other/tool]") == Found()
    assert look("args.whatever > 3", "[billing/refund, other/tool]").errors != ()


def test_types_serve_checking_only() -> None:
    """What runs knows no types: an argument that is absent is an error in a rule that was checked, too."""
    policies = made(
        rule("r", "permit: {}", "args.amount < 5"),
        more="tests:\n  - {given: {tool: billing/refund, args: {}}, expect: {outcome: error}}\n",
    )
    assert Fitting(TOOLS).look_at(policies) == Found()
    (case,) = run(policies)
    assert case.passed


def test_where_arguments_are_read_is_found_in_any_spelling() -> None:
    """Dots, brackets, quotes of all kinds, blanks, comments; and neither texts nor fields of others."""
    found = uses.find(
        'args . a\n//args.x\n["b"][\'c\'].?d + args[r"e"].f(3) + x.args.g + "args.h" + has(args.i.j) + args[k] + args.`l-m`'
    )
    assert [(each.path, each.tests, each.optional) for each in found] == [
        (("a", "b", "c", "d"), False, True),
        (("e",), False, False),
        (("i", "j"), True, False),
        ((), False, False),
        (("l-m",), False, False),
    ]
