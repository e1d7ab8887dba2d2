"""Whoever writes a policy is told everything that is wrong with it, and where."""

import pytest
from tests.core.policy_bench import HEAD, errors, policy, rule

from whygate.core.policy.errors import PolicyErrors
from whygate.core.policy.parse import load

GOOD = policy(rule("r", "permit: {}"))


def with_rule(text: str) -> str:
    return policy(text)


# A text, and what is found: what stands at the place that is told, and a piece of the message.
FOUND = [
    ("unknown key", GOOD.replace("owner:", "ownr: x\nowner:"), [("ownr: x", "unknown key `ownr` (did you mean `owner`?)")]),
    ("key twice", GOOD.replace("version: 1", "version: 1\nversion: 2"), [("version: 2", "`version` stands here twice")]),
    ("key missing", "policy: p\nversion: 1\nagents: ['*']\nrules:\n  - {id: a, tools: ['*'], permit: {}, why: w}\n",
     [("policy: p", "`owner` is missing")]),
    ("why missing", with_rule("- {id: a, tools: ['*'], permit: {}}"), [("{id: a, to", "`why` is missing")]),
    ("wrong type", GOOD.replace("version: 1", "version: one"), [("one", "`version` must be a whole number")]),
    ("no rules", HEAD.format(id="p") + "rules: []\n", [("[]", "`rules` must not be empty")]),
    ("both effects", with_rule("- {id: a, tools: ['*'], permit: {}, deny: {}, why: w}"), [("{id: a, to", "either `permit` or `deny`")]),
    ("no effect", with_rule("- {id: a, tools: ['*'], why: w}"), [("{id: a, to", "either `permit` or `deny`")]),
    ("null effect", with_rule("- {id: a, tools: ['*'], permit: , why: w}"), [("{id: a, to", "either `permit` or `deny`")]),
    ("unknown code", with_rule("- {id: a, tools: ['*'], deny: {code: no.such}, why: w}"), [("no.such},", "unknown reason code `no.such`")]),
    ("code of the gateway", with_rule("- {id: a, tools: ['*'], deny: {code: agent.suspended}, why: w}"), [("agent.susp", "not for rules to give")]),
    ("code that permits", with_rule("- {id: a, tools: ['*'], deny: {code: role.permitted}, why: w}"), [("role.permi", "not for rules to give")]),
    ("rule twice", policy(rule("a", "permit: {}") + rule("a", "deny: {}")), [("a", "the rule `a` stands in this policy already")]),
    ("policy twice", f"{GOOD}---\n{GOOD}", [("p", "the policy `p` stands in p.yaml:1 already")]),
    ("tool without a server", policy(rule("a", "permit: {}", tools="[refund]")), [("refund]", "server/name")]),
    ("unknown class", policy(rule("a", "permit: {}", tools="['class:sned']")), [("'class:sne", "unknown class")]),
    ("unknown selector", policy(rule("a", "permit: {}", tools="['resources:x/y']")), [("'resources:", "a tool is named as")]),
    ("resource without scheme", policy(rule("a", "permit: {}", tools="['resource:x/y']")), [("'resource:", "has no scheme")]),
    ("resource by folder", policy(rule("a", "permit: {}", tools="['resource:x/srv/*']")), [("'resource:", "begins with a scheme")]),
    ("resource with dots", policy(rule("a", "permit: {}", tools="['resource:x/file:///a/../b']")), [("'res", "a dot segment")]),
    ("prompt without a server", policy(rule("a", "permit: {}", tools="['prompt:greet']")), [("'prompt:", "prompt:server/name")]),
    ("agent with a star", GOOD.replace('"role:clerk"', '"spiffe://x/*"'), [('"spiffe://', "exact id")]),
    ("unknown name", policy(rule("a", "permit: {}", "args.a > 1 && amount > 2")), [("amount > 2", "unknown name `amount`")]),
    ("unknown field", policy(rule("a", "permit: {}", "tool.nmae == 'x'")), [("tool.nmae", "of `tool` a rule sees class, id")]),
    ("types", policy(rule("a", "permit: {}", "tool.tier > 3")), [("> 3", "no matching overload")]),
    ("no bool", policy(rule("a", "permit: {}", "tool.tier")), [("tool.tier", "true or false, this one with a string")]),
    ("syntax", policy(rule("a", "permit: {}", "args.a >")), [(">", "Syntax error")]),
    ("map", policy(rule("a", "permit: {}", "args.a.map(x, x) == []")), [("(x, x) ==", "map() and filter() are refused")]),
    ("filter", policy(rule("a", "permit: {}", "args.a.filter(x, x > 1) == []")), [("(x, x > 1)", "map() and filter() are refused")]),
    ("loop in loop", policy(rule("a", "permit: {}", "args.a.all(x, args.b.exists(y, x == y))")), [("(y, x == y", "a loop within a loop")]),
    ("pattern of the agent's", policy(rule("a", "permit: {}", "args.a.matches(args.b)")), [("(args.b)", "must be written in the rule")]),
    ("bad pattern", policy(rule("a", "permit: {}", "args.a.matches('(x')")), [("'(x')", "can't read this text")]),
    ("bad time", policy(rule("a", "permit: {}", "now > timestamp('2026')")), [("'2026')", "can't read this text")]),
    ("in a plain scalar", with_rule("- {id: a, tools: ['*'], when: args.a > bogus, permit: {}, why: w}"), [("bogus, per", "unknown name `bogus`")]),
    ("in single quotes", with_rule("- {id: a, tools: ['*'], when: 'args.a == ''x'' && bogus', permit: {}, why: w}"), [("bogus', pe", "unknown name `bogus`")]),
    ("in a folded scalar", with_rule("- id: a\n  tools: ['*']\n  when: >\n    args.a == 1 &&\n    bogus\n  permit: {}\n  why: w"), [("bogus", "unknown name `bogus`")]),
    ("in a literal scalar", with_rule("- id: a\n  tools: ['*']\n  when: |\n    args.a == 1 &&\n      bogus\n  permit: {}\n  why: w"), [("bogus", "unknown name `bogus`")]),
    ("let that is reserved", policy(rule("a", "permit: {}"), more="let: {args: '1 > 0'}\n"), [("args: '1 >", "can't be a name")]),
    ("let that is a word", policy(rule("a", "permit: {}"), more="let: {in: '1 > 0'}\n"), [("in: '1 > 0", "can't be a name")]),
    ("let too early", policy(rule("a", "permit: {}"), more="let: {a: b > 1, b: '2'}\n"), [("b > 1, b:", "`b` is not defined yet")]),
    ("let of itself", policy(rule("a", "permit: {}"), more="let: {a: a > 1}\n"), [("a > 1}", "`a` is not defined yet")]),
    ("let that is wrong", policy(rule("r", "permit: {}", "a"), more="let:\n  a: bogus > 1\n"),
     [("bogus > 1", "unknown name `bogus`"), ("|-", "a name whose expression is wrong")]),
    ("two requirements", with_rule("- {id: a, tools: ['*'], permit: {require: {scope: [x], human: {approvers: [y]}}}, why: w}"),
     [("{scope: [x", "names one of human, grant")]),
    ("unknown requirement", with_rule("- {id: a, tools: ['*'], permit: {require: {hunam: {}}}, why: w}"), [("hunam: {}}", "did you mean `human`?")]),
    ("nobody to approve", with_rule("- {id: a, tools: ['*'], permit: {require: {human: {approvers: []}}}, why: w}"), [("[]}}}, why", "must not be empty")]),
    ("bad duration", with_rule("- {id: a, tools: ['*'], permit: {require: {human: {approvers: [x], within: 10 min}}}, why: w}"), [("10 min}}},", "a duration is")]),
    ("bad narrowing", with_rule("- {id: a, tools: ['*'], permit: {require: {human: {approvers: [x], narrow: [amount]}}}, why: w}"), [("amount]}}}", "name an argument by its path")]),
    ("self approval", with_rule("- {id: a, tools: ['*'], permit: {require: {human: {approvers: [x], not: [owner]}}}, why: w}"), [("[owner]", "never approves its own call")]),
    ("bad zone", policy(rule("a", "permit: {}", "now.getHours('Mars/North') > 8")), [("'Mars/Nort", "can't read this text")]),
    ("empty authn", with_rule("- {id: a, tools: ['*'], permit: {require: {authn: {}}}, why: w}"), [("{}}}, why:", "max_age")]),
    ("budgets", policy(rule("a", "permit: {}"), more="budgets:\n  - {id: b, tools: ['*'], sum: args.a, per: 24h, max: 5}\n"), [("budgets:", "budgets are not supported yet")]),
    ("budget of no shape", policy(rule("a", "permit: {}"), more="budgets:\n  - {id: b}\n"), [("{id: b}", "`max` is missing")]),
    ("alias", GOOD.replace('["role:clerk"]', "&x ['*']") + "tests: [*x]\n", [("&x ['*']", "anchors are not supported"), ("*x]", "aliases are not supported")]),
    ("tag", GOOD.replace("version: 1", "version: !!int 1"), [("!!int 1", "tags are not supported")]),
    ("old yaml", GOOD + "tests:\n  - given: {tool: a/b, args: {to: no, at: 10:30, id: 010}}\n    expect: {outcome: blocked}\n",
     [("no, at: 10", "as a bool: quote it"), ("10:30, id:", "as a int: quote it"), ("010}", "as a int: quote it")]),
    ("broken yaml", "policy: [p\nversion: 1\n", [(": 1", "not readable as YAML")]),
    ("expression with a quote", with_rule("- id: a\n  when: 'x' in args.y"), [("in args.y", "quoted as a whole")]),
    ("control character", "policy: \x01\n", [("\x01", "not readable as YAML")]),
    ("bomb of brackets", "[" * 300_000, [("[[[[[[[[[[", "nested more than 32 deep")]),
    ("no mapping", "- a\n- b\n", [("- a", "must be a mapping")]),
    ("number as a key", GOOD + "1: 2\n", [("1: 2", "a key must be a text")]),
    ("unknown outcome", GOOD + "tests:\n  - given: {tool: a/b}\n    expect: {outcome: allowed}\n", [("allowed}", "must be one of permitted, elevated")]),
    ("unknown rule in a test", GOOD + "tests:\n  - given: {tool: a/b}\n    expect: {outcome: blocked, rule: x}\n", [("x}", "no rule `x` here")]),
    ("unknown code in a test", GOOD + "tests:\n  - given: {tool: a/b}\n    expect: {outcome: blocked, code: x.y}\n", [("x.y}", "unknown reason code `x.y`")]),
    ("time without a zone", GOOD + "tests:\n  - given: {tool: a/b, now: '2026-01-01T00:00:00'}\n    expect: {outcome: blocked}\n", [("'2026-01-0", "a time needs its zone")]),
    ("no time", GOOD + "tests:\n  - given: {tool: a/b, now: noon}\n    expect: {outcome: blocked}\n", [("noon}", "2026-01-05T12:00:00Z")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found"), [pytest.param(text, found, id=name) for name, text, found in FOUND])
def test_each_mistake_is_told_with_its_place(text: str, found: list[tuple[str, str]]) -> None:
    """Every mistake refuses the set and is told with file, line, column and what to do."""
    got = errors(text)
    lines = text.split("\n")
    told = [(lines[e.line - 1][e.column - 1 :], e.message) for e in got]
    for place, message in found:
        assert any(stands.startswith(place) and message in said for stands, said in told), told
    assert {e.file for e in got} == {"p.yaml"}


def test_all_mistakes_are_told_at_once() -> None:
    """Mistakes in several files and rules come out together, in the order of their places."""
    texts = {
        "b.yaml": policy(rule("x", "permit: {}", "foo") + rule("y", "deny: {code: a.b}", "bar"), name="b"),
        "a.yaml": policy(rule("x", "permit: {}", "tool.tier > 1 || baz"), name="a"),
        "c.yaml": "policy: [",
    }
    with pytest.raises(PolicyErrors) as wrong:
        load(texts)
    got = wrong.value.errors
    assert [e.file for e in got] == ["a.yaml", "a.yaml", "b.yaml", "b.yaml", "b.yaml", "c.yaml"]
    assert list(got) == sorted(got)
    assert str(got[0]).startswith("a.yaml:9:17: found no matching overload")


def test_one_bad_file_refuses_the_set() -> None:
    """Loading is all or nothing: a good file does not come into force beside a bad one."""
    with pytest.raises(PolicyErrors):
        load({"good.yaml": policy(rule("a", "permit: {}"), name="good"), "bad.yaml": "x: 1"})


@pytest.mark.parametrize("texts", [{}, {"a.yaml": ""}, {"a.yaml": "# nothing\n---\n"}])
def test_an_empty_set_is_a_set(texts: dict[str, str]) -> None:
    """No policies are a valid set: it permits nothing."""
    assert load(texts).rules == ()


def test_a_text_that_is_no_unicode_is_refused() -> None:
    """A lone surrogate can't be hashed nor stored: it is a finding, not a crash."""
    assert "not readable" in errors("policy: \ud800")[0].message
