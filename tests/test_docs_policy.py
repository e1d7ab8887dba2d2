"""docs/policy.md tells the truth: its policies load and pass, its expressions compile or don't, its commands run."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from whygate.cli.policy import app
from whygate.core.decide import decide
from whygate.core.identity import IdentityType
from whygate.core.policy.cases import run
from whygate.core.policy.cel import VARIABLES
from whygate.core.policy.errors import PolicyErrors
from whygate.core.policy.model import UNMET
from whygate.core.policy.parse import DENY_CODES, load
from whygate.core.policy.shape import PolicyShape
from whygate.core.policy.shape import Rule as RuleShape
from whygate.core.reasons import Code

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no {kind} block"
    return found


def with_condition(when: str) -> str:
    return (
        "policy: p\nversion: 1\nowner: o\nagents: ['*']\nrules:\n"
        f"  - id: r\n    tools: ['*']\n    when: |-\n      {when}\n    permit: {{}}\n    why: w\n"
        "tests:\n  - {given: {tool: a/b}, expect: {outcome: blocked}}\n"
    )


@pytest.mark.parametrize("text", blocks("yaml"))
def test_its_policies_load_and_pass(text: str) -> None:
    """Each policy of the page is one, and has tests that pass."""
    results = run(load({"page.yaml": text}))
    assert results
    assert [result.problems for result in results if not result.passed] == []


@pytest.mark.parametrize("when", blocks("cel")[0].splitlines())
def test_its_expressions_are_conditions(when: str) -> None:
    """Each expression of the page can be a rule's condition."""
    assert load({"page.yaml": with_condition(when)}).rules


@pytest.mark.parametrize("when", blocks("cel refused")[0].splitlines())
def test_what_it_calls_refused_is_refused(when: str) -> None:
    """Each expression that the page calls refused is refused at load."""
    with pytest.raises(PolicyErrors):
        load({"page.yaml": with_condition(when)})


ABSENT = re.findall(r"^\| `(.*?)` \| (refused|holds|does not hold)", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("when", "answer"), ABSENT)
def test_its_table_of_absence_is_right(when: str, answer: str) -> None:
    """What the page says of an absent argument is what happens."""
    policies = load({"page.yaml": with_condition(when.replace("\\|", "|"))})
    case = policies.policies[0].tests[0]
    expected = {"refused": Code.POLICY_EVAL_ERROR, "holds": Code.ROLE_PERMITTED, "does not hold": Code.POLICY_NO_MATCH}
    assert len(ABSENT) >= 7
    assert decide(case.call, case.facts, policies).code is expected[answer]


@pytest.mark.parametrize("line", [line for block in blocks("console") for line in block.splitlines()])
def test_its_commands_run(line: str) -> None:
    """Each command of the page runs on the example policies and ends with 0."""
    words = shlex.split(line.removeprefix("$ whygate policy "))
    words = [str(ROOT / word) if word == "policies" else word for word in words]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output


def test_it_names_everything() -> None:
    """Every key, variable, requirement, reason code and identity type of the language stands on the page."""
    for shape in (PolicyShape, RuleShape):
        for name in shape.model_fields:
            assert f"`{name}`" in PAGE, name
    for name in VARIABLES:
        head, _, tail = name.partition(".")
        assert f"`{name}`" in PAGE or (f"`{head}." in PAGE and f"`.{tail}`" in PAGE), name
    for word in (*DENY_CODES, *UNMET.values()):
        assert f"`{word}`" in PAGE, word
    for kind in UNMET:
        assert f"| `{kind}: " in PAGE, kind
    assert all(f"`{kind}`" in PAGE for kind in IdentityType if kind is not IdentityType.ANONYMOUS)
