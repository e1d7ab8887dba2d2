"""`whygate policy`: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
from tests.core.policy_bench import policy, rule
from typer.testing import CliRunner

from whygate.cli.policy import app, shown

CASE = "tests:\n  - {given: {tool: billing/refund, args: {a: 5}}, expect: {outcome: %s}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = policy(
        rule("small", "permit: {}", "args.a < 100")
        + rule("large", "permit: {require: {human: {approvers: [group:leads]}}}", "args.a >= 100")
        + rule("mail", "permit: {}", tools="[mail/send]"),
        more=CASE % "permitted",
    )
    (tmp_path / "p.yaml").write_text(text)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


ASK = ("--agent", "agent-1", "--role", "clerk", "--tool", "billing/refund")


def test_check_says_fine(folder: Path) -> None:
    """A good set: exit code 0, and the digest that will be in force."""
    code, said = run("check", str(folder))
    assert code == 0
    assert "sha256:" in said
    told = json.loads(run("check", str(folder), "--json")[1])
    assert (told["ok"], told["policies"][0]["rules"]) == (True, 3)


def test_check_tells_every_error(folder: Path) -> None:
    """A bad set: exit code 1, and every error with its place, for people and for programs."""
    (folder / "bad.yaml").write_text(policy(rule("r", "permit: {}", "bogus") + rule("r", "permit: {}"), name="bad"))
    code, said = run("check", str(folder))
    assert code == 1
    assert "bad.yaml:9:7: unknown name `bogus`" in said
    assert "2 errors" in said
    told = json.loads(run("check", str(folder), "--json")[1])
    assert [(each["file"], each["line"]) for each in told["errors"]] == [("bad.yaml", 9), ("bad.yaml", 12)]
    assert run("test", str(folder))[0] == 1
    assert run("explain", str(folder), *ASK)[0] == 1


def test_test_runs_the_tests(folder: Path) -> None:
    """Passing tests: exit code 0. A failing one: exit code 1, what was expected, what came, and why."""
    assert run("test", str(folder)) == (0, "All 1 tests passed.\n")
    (folder / "p.yaml").write_text((folder / "p.yaml").read_text().replace("outcome: permitted", "outcome: blocked"))
    code, said = run("test", str(folder))
    assert code == 1
    assert "expected blocked, got permitted (role.permitted)" in said
    assert "why: Because of small." in said
    told = json.loads(run("test", str(folder), "--json")[1])
    assert (told["ok"], told["tests"][0]["rule"]) == (False, "p/small")


def test_explain_tells_who_decided(folder: Path) -> None:
    """An allowed call: exit code 0. A refused one: exit code 1. Both say which rule decided, and what each answered."""
    code, said = run("explain", str(folder), *ASK, "--args", '{"a": 5}')
    assert code == 0
    assert "permitted (role.permitted)" in said
    assert "> p/small" in said
    assert "1 rules were not asked" in said
    code, said = run("explain", str(folder), *ASK, "--args", '{"a": 500}', "--all")
    assert code == 1
    assert "challenged (step_up.required)" in said
    assert "wants human" in said
    assert "not for this tool" in said
    told = json.loads(run("explain", str(folder), *ASK, "--json")[1])
    assert (told["outcome"], told["code"]) == ("error", "policy.eval_error")
    assert [line["result"] for line in told["rules"]] == ["error", "error", None]


@pytest.mark.parametrize(
    "words", [("--args", "{"), ("--args", "[1]"), ("--args", '{"a":1,"a":2}'), ("--tool", "refund")]
)
def test_misuse_is_no_answer(folder: Path, words: tuple[str, str]) -> None:
    """What can't be asked ends with exit code 2, apart from every answer."""
    assert run("explain", str(folder), *ASK, *words)[0] == 2
    assert run("check", str(folder / "nowhere"))[0] == 2
    assert run("nonsense")[0] == 2


def test_text_of_others_can_not_paint(folder: Path) -> None:
    """Markup and control characters of a policy or an argument are shown, never obeyed."""
    assert shown("[red]x[/]\x1b[31m\u202e") == "\\[red]x\\[/]\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"
    text = (folder / "p.yaml").read_text().replace("Because of small.", '"[bold]A[/bold] \\e[31m why [/]"')
    (folder / "p.yaml").write_text(text)
    code, said = run("explain", str(folder), *ASK, "--args", '{"a": 5}')
    assert code == 0
    assert "[bold]A[/bold]" in said
    assert "\x1b" not in said
