"""The commands that read a ledger, as somebody types them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.edges import cli_world as world
from tests.servers.gateway import settings
from typer.testing import CliRunner

from whygate import __version__
from whygate.cli import main, screen
from whygate.core.reasons import Code
from whygate.core.records import Resource
from whygate.stores.reader import Reader

BILLING: dict[str, Any] = {
    "http": {"url": "http://127.0.0.1:9"},
    "operations": [
        {"name": "invoice_get", "method": "GET", "path": "/invoices/{invoice_id}", "class": "read", "tier": "low"},
        {"name": "refund", "method": "POST", "path": "/refunds", "class": "spend", "tier": "high"},
    ],
}
GIT: dict[str, Any] = {
    "mcp": {"command": ["git-server"]},
    "tools": {"git_reset": {"class": "delete"}, "git_diff*": {"class": "read", "tier": "low"}},
}


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the person at this machine has set is not what is tested."""
    for name in ("WHYGATE_LEDGER", "WHYGATE_CONFIG", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def story() -> world.Story:
    return world.Story()


@pytest.fixture(scope="module")
def ledger(story: world.Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with one task's story."""
    path = tmp_path_factory.mktemp("ledger") / "whygate.db"
    stranger = world.decision(Code.AGENT_UNAUTHENTICATED, context=world.Context(trace_id="cd" * 16))
    world.write(path, *story.records, stranger)
    return path


class Ran:
    """What a command said and how it ended."""

    def __init__(self, words: tuple[object, ...], env: dict[str, str] | None = None) -> None:
        result = CliRunner().invoke(main.app, [str(word) for word in words], env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr

    @property
    def flat(self) -> str:
        return " ".join(self.out.split())

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*words: object, **env: str) -> Ran:
    return Ran(words, env or None)


# --- why ---


def test_why_answers_in_its_first_line(ledger: Path, story: world.Story) -> None:
    """Outcome, call and code stand first; asking about a refusal is no failure."""
    ran = run("why", story.denied.id, "--ledger", ledger)
    assert ran.code == 0
    assert ran.out.split("\n")[0] == "BLOCKED tools/call billing/refund — args.limit_exceeded"
    assert "support-agent.yaml line" in ran.out
    assert "Not sent to the tool." in ran.out


def test_why_takes_short_ids(ledger: Path, story: world.Story) -> None:
    """The first eight hex digits, with or without what surrounds them when pasted."""
    short = story.denied.id[:8]
    assert run("why", short, "--ledger", ledger).out == run("why", story.denied.id.upper(), "--ledger", ledger).out
    assert run("why", f" {short} ", "--ledger", ledger).code == 0


def test_why_of_a_completion_is_its_decisions(ledger: Path, story: world.Story) -> None:
    """Whichever id of a call is at hand, the story is the call's."""
    ran = run("why", story.read_end.id, "--ledger", ledger, "--json")
    assert ran.json["story"]["id"] == story.read.id


@pytest.mark.parametrize("asked", [world.TASK, world.TASK[:13], world.TRACE, world.TRACE[:12]])
def test_why_of_a_chain_is_its_first_refusal(ledger: Path, story: world.Story, asked: str) -> None:
    """A task or a trace: what was refused in it, and the story of the first."""
    ran = run("why", asked, "--ledger", ledger)
    assert ran.code == 0
    assert "4 calls in" in ran.flat
    assert story.challenged.id in ran.out
    assert "\nBLOCKED tools/call billing/refund — args.limit_exceeded\n" in ran.out
    assert run("why", asked, "--ledger", ledger, "--json").json["story"]["id"] == story.denied.id


def test_why_of_a_trace_with_one_decision(ledger: Path) -> None:
    """A refused stranger has a trace of its own: its story comes at once."""
    ran = run("why", "cd" * 16, "--ledger", ledger)
    assert ran.out.startswith("BLOCKED tools/call billing/refund — agent.unauthenticated")


def test_why_of_a_chain_without_refusals(tmp_path: Path) -> None:
    """Nothing was refused: that is the answer, and no story is picked at random."""
    world.write(tmp_path / "l.db", world.opened(), world.decision(), world.decision())
    ran = run("why", world.TASK, "--ledger", tmp_path / "l.db")
    assert "2 permitted Nothing in it was refused." in ran.flat
    assert run("why", world.TASK, "--ledger", tmp_path / "l.db", "--json").json["story"] is None


def test_why_of_any_record(ledger: Path, story: world.Story) -> None:
    """The id of a record that is no decision gets what that record says."""
    assert run("why", "--ledger", ledger, "--json", story.opened.id).json["found"] == "task"
    with Reader(ledger) as reader:
        start = json.loads(reader.since(0, 1)[0][1])
    ran = run("why", start["id"], "--ledger", ledger)
    assert (ran.code, ran.out.split("\n")[0]) == (0, "START")
    assert "version test" in ran.flat
    assert run("task", start["id"], "--ledger", ledger).code == 1


def test_why_says_when_there_is_nothing(ledger: Path) -> None:
    """Not found is 1; what is no id is misuse, 2."""
    missing = run("why", "ffffffff-0000-7000-8000-000000000000", "--ledger", ledger)
    assert (missing.code, missing.out) == (1, "")
    assert "knows no decision, task or trace" in missing.err
    assert run("why", "ffffffff", "--ledger", ledger).code == 1
    for wrong in ("abc", "what?", "\x1b[2J"):
        ran = run("why", wrong, "--ledger", ledger)
        assert ran.code in {1, 2}
        assert "\x1b" not in ran.err
    assert run("why", "what?", "--ledger", ledger).code == 2


def test_an_ambiguous_id_lists_what_it_could_be(tmp_path: Path) -> None:
    """Ids made in one minute begin alike: the candidates are shown."""
    first, second = world.decision(), world.decision()
    first.id, second.id = "0fffffff-0000-7000-8000-000000000001", "0fffffff-0000-7000-8000-000000000002"
    world.write(tmp_path / "l.db", first, second)
    ran = run("why", "0fffffff", "--ledger", tmp_path / "l.db")
    assert ran.code == 1
    assert first.id in ran.err
    assert second.id in ran.err


def test_why_json_is_stable(ledger: Path, story: world.Story) -> None:
    """The keys that programs rely on. Keys may be added here, none may go."""
    answer = run("why", story.denied.id, "--ledger", ledger, "--json").json
    assert {"asked", "found", "story", "chain", "event"} <= set(answer)
    told = answer["story"]
    assert {"id", "seq", "time", "outcome", "effect", "code", "meaning", "who", "what", "where"} <= set(told)
    assert {"rule", "evaluations", "requires", "told", "remedy", "end", "policy_digest", "explanation"} <= set(told)
    assert told["rule"]["source"]["file"] == "support-agent.yaml"
    assert [each["rule"] for each in told["evaluations"] if each["decided"]] == ["refund-cap"]
    assert told["end"]["state"] == "not_sent"


# --- task ---


def test_task_shows_the_tree(ledger: Path, story: world.Story) -> None:
    """Calls in order, those made from a call below it, refusals with their note and id."""
    ran = run("task", world.TASK, "--ledger", ledger)
    assert ran.code == 0
    lines = ran.out.split("\n")
    at = {name: next(n for n, line in enumerate(lines) if name in line) for name in ("invoice_get", "get_current_time")}
    assert lines[at["get_current_time"]].index("+ permitted") > lines[at["invoice_get"]].index("+ permitted")
    assert story.denied.id in ran.out
    assert "Nobody refunds more than" in ran.out


def test_task_finds_it_by_what_is_at_hand(ledger: Path, story: world.Story) -> None:
    """Task, trace, a decision in it, or the beginning of one."""
    for asked in (world.TASK, world.TRACE, story.denied.id, story.helper.id[:8], world.TASK[:18]):
        calls = run("task", asked, "--ledger", ledger, "--json").json["calls"]
        assert [call["id"] for call in calls] == [
            story.read.id,
            story.helper.id,
            story.denied.id,
            story.challenged.id,
        ]


def test_task_json(ledger: Path, story: world.Story) -> None:
    """Each call with code, parent and end, for programs."""
    chain = run("task", world.TASK, "--ledger", ledger, "--json").json
    assert chain["counts"] == {"permitted": 2, "challenged": 1, "blocked": 1}
    helper = chain["calls"][1]
    assert (helper["parent"], helper["depth"], helper["end"]["code"]) == (story.read.id, 1, "upstream.timeout")
    assert chain["calls"][2]["rule"] == "support-agent/refund-cap"


def test_an_unknown_task(ledger: Path) -> None:
    """Not found is 1, in one line."""
    ran = run("task", "no-such-task", "--ledger", ledger)
    assert (ran.code, ran.out) == (2, "")
    assert run("task", "ee" * 16, "--ledger", ledger).code == 1


# --- a pipe, an old terminal, a hint ---


def test_a_pipe_gets_plain_text(ledger: Path) -> None:
    """No colours, no blanks at line ends, and one line for each sentence."""
    for command in ("why", "task"):
        out = run(command, world.TASK, "--ledger", ledger).out
        assert "\x1b" not in out
        assert [line for line in out.split("\n") if line != line.rstrip()] == []
    assert "Nobody refunds more than 5,000.00 in one call; split payments are for the finance team." in out


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_screen(ledger: Path, story: world.Story, width: int) -> None:
    """Sentences break at words; only what has no blanks may stand out."""
    for words in (("why", story.denied.id), ("why", world.TASK), ("task", world.TASK)):
        out = run(*words, "--ledger", ledger, COLUMNS=str(width)).out
        assert [
            line for line in out.split("\n") if len(line) > width and len(max(line.split(), key=len)) < width / 2
        ] == []


def test_suggested_commands_read_the_same_ledger(ledger: Path) -> None:
    """What is printed to be typed next works as it stands, and says no more than needed."""
    assert f"whygate task {world.TASK} --ledger {ledger}\n" in run("why", world.TASK, "--ledger", ledger).out
    assert (
        f"whygate task {world.TASK} --ledger {ledger}\n" in run("why", world.TASK, "--ledger", ledger, COLUMNS="40").out
    )
    out = run("why", world.TASK, WHYGATE_LEDGER=str(ledger)).out
    assert f"whygate task {world.TASK}\n" in out


def test_the_whole_command(ledger: Path, story: world.Story) -> None:
    """As a process of its own, on a terminal that knows only ASCII: the same words, no stack trace."""
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words in (["why", story.denied.id], ["task", world.TASK], ["tail", "--no-follow"]):
        command = [sys.executable, "-m", "whygate", *words, "--ledger", str(ledger)]
        done = subprocess.run(command, capture_output=True, env=env, check=False, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()
        assert "args.limit_exceeded" in done.stdout


# --- which ledger ---


def test_the_ledger_of_the_configuration(ledger: Path, story: world.Story, tmp_path: Path) -> None:
    """Without --ledger: the one that the configuration names, relative to its file."""
    file = tmp_path / "whygate.yaml"
    file.write_text(json.dumps(settings(ledger.parent, {})), encoding="utf-8")
    assert run("why", story.denied.id).code == 0
    assert run("why", story.denied.id, "-c", file).code == 0
    elsewhere = tmp_path / "deploy.yaml"
    file.rename(elsewhere)
    assert run("why", story.denied.id, WHYGATE_CONFIG=str(elsewhere)).code == 0
    assert run("why", story.denied.id).code == 2


def test_misuse_is_two(tmp_path: Path) -> None:
    """A configuration or a ledger that can't be read is said in a line, with what to do."""
    nothing = run("why", "abcdef01")
    assert nothing.code == 2
    assert "--ledger PATH" in nothing.err
    missing = run("task", "abcdef01", "--ledger", tmp_path / "none.db")
    assert missing.code == 2
    assert "There is no such file." in missing.err
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database at all, but long enough to be taken for one" * 100)
    assert run("why", "abcdef01", "--ledger", tmp_path / "text.db").code == 2
    assert run("why").code == 2
    assert run("why", "--no-such-option").code == 2


# --- tools ---


def configured(folder: Path, **changed: Any) -> Path:
    file = folder / "whygate.yaml"
    file.write_text(json.dumps(settings(folder, {"billing": BILLING, "git": GIT}, **changed)), encoding="utf-8")
    return file


def test_tools_lists_what_is_classified(tmp_path: Path) -> None:
    """Each tool of the configuration, before any ledger exists."""
    ran = run("tools", "list", "-c", configured(tmp_path))
    assert ran.code == 0
    rows = [line.split() for line in ran.out.strip().split("\n")]
    assert [row[:3] for row in rows] == [
        ["billing/invoice_get", "read", "low"],
        ["billing/refund", "spend", "high"],
        ["git/git_diff*", "read", "low"],
        ["git/git_reset", "delete", "high"],
    ]


def test_tools_lists_what_was_called(tmp_path: Path) -> None:
    """Tools that the operator never classified show as such; names that only a caller said do not show."""
    file = configured(tmp_path)
    world.write(
        tmp_path / "whygate.db",
        world.decision(tool="git/git_blame"),
        world.decision(tool="git/git_diff_staged"),
        world.decision(Code.TOOL_UNKNOWN, resource=Resource(asked="made_up", server="git")),
    )
    tools = {row["tool"]: row for row in run("tools", "list", "-c", file, "--json").json["tools"]}
    assert "git/made_up" not in tools
    assert (tools["git/git_blame"]["classified"], tools["git/git_blame"]["tier"]) == (False, "high")
    assert (tools["git/git_diff_staged"]["class"], tools["git/git_diff_staged"]["calls"]) == ("read", 1)
    assert tools["git/git_diff*"]["pattern"] is True


def test_tools_for_an_agent(tmp_path: Path) -> None:
    """What the policy could permit to it, what it never would, and by which rules."""
    file = configured(tmp_path)
    tools = {
        row["tool"]: row for row in run("tools", "list", "-c", file, "--agent", "agent:support", "--json").json["tools"]
    }
    assert tools["billing/refund"]["visible"] is True
    assert "support-agent/refund-small would permit if its condition holds" in tools["billing/refund"]["rules"]
    assert tools["git/git_reset"]["visible"] is False
    assert tools["git/git_diff*"]["visible"] is None
    flat = run("tools", "list", "-c", file, "--agent", "agent:support").flat
    assert "2 tools could be permitted to agent:support; each call is still decided by itself." in flat


@pytest.mark.parametrize(("agent", "code"), [("agent:nobody", 2), ("agent:suspended", 1), ("agent:retired", 1)])
def test_tools_for_somebody_else(tmp_path: Path, agent: str, code: int) -> None:
    """An agent that is not in the inventory is a slip of the hand; one that may do nothing gets a no."""
    ran = run("tools", "list", "-c", configured(tmp_path), "--agent", agent)
    assert (ran.code, ran.out) == (code, "")
    assert agent in ran.err


# --- the root ---


def test_help_loads_nothing() -> None:
    """The list of commands is there at once, without what they need."""
    ran = run("--help")
    assert ran.code == 0
    for name, (_, line) in main.COMMANDS.items():
        assert f"{name} " in ran.out
        assert line[:30] in ran.out
    heavy = "litestar", "granian", "pydantic_settings", "whygate.wiring", "whygate.config", "cel_expr_python", "httpx"
    script = (
        "import sys; from whygate.cli import main, why, task, tail; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_loads(name: str) -> None:
    """Each command of the table is there and has a help page."""
    ran = run(name, "--help")
    assert ran.code == 0
    assert ran.out.startswith("Usage: ")
    assert f" {name} " in ran.out.split("\n")[0]


def test_the_root_itself() -> None:
    """The version; a suggestion for a slip of the hand; help where nothing was asked."""
    assert run("--version").out == f"whygate {__version__}\n"
    slip = run("tial")
    assert slip.code == 2
    assert "Did you mean 'tail'" in slip.err
    assert run().code == 2


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """What could turn a terminal's head is escaped in JSON, and still all there."""
    screen.put_json({"tool": "a\u202eb\x1b"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"tool": "a\u202eb\x1b"}
