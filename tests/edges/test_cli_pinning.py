"""``whygate tools pin``: a real server's tools are shown as they differ, and pinned by whoever agrees."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.servers import changing
from tests.servers.gateway import settings

from whygate.core.pins import load
from whygate.policy_files import PinFolder

ECHO: dict[str, Any] = {
    "name": "echo",
    "description": "Says it.\nTwice, if asked.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string", "description": "What to say."}}},
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
}


class Desk:
    """A folder with a configuration of one server, whose tools are in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pins = folder / "pins" / "up.json"
        self._tools = folder / "tools.json"
        (folder / "jwks.json").write_text("{}", encoding="utf-8")
        server = {"mcp": {"command": [sys.executable, changing.__file__, str(self._tools)]}}
        (folder / "whygate.yaml").write_text(json.dumps(settings(folder, {"up": server})), encoding="utf-8")
        self.says(ECHO)

    def says(self, *tools: dict[str, Any]) -> None:
        self._tools.write_text(json.dumps(tools), encoding="utf-8")

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "whygate", *words, "--config", str(self.folder / "whygate.yaml")]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "200"},
        )

    def pin(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.run("tools", "pin", *words)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_nothing_is_pinned_without_somebodys_word(desk: Desk) -> None:
    """With no terminal and no --yes the difference is shown, nothing is written, and the exit code says so."""
    done = desk.pin()
    assert done.returncode == 1
    assert "new     up/echo  its server says: reads only, stays inside" in done.stdout
    assert "    description: Twice, if asked.\n" in done.stdout
    assert "    inputSchema.properties.text.description: What to say.\n" in done.stdout
    assert "nothing is pinned without your word" in done.stderr
    assert not desk.pins.exists()


def test_a_person_at_a_terminal_is_asked(desk: Desk) -> None:
    """No is the default; yes pins."""
    for answer, code in ((b"\n", 1), (b"y\n", 0)):
        here, there = pty.openpty()
        command = [sys.executable, "-m", "whygate", "tools", "pin", "up", "--config", str(desk.folder / "whygate.yaml")]
        process = subprocess.Popen(command, stdin=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.write(here, answer)
        output, _ = process.communicate(timeout=60)
        os.close(here)
        os.close(there)
        assert (process.returncode, b"Pin up like this? [y/N]" in output) == (code, True)
        assert desk.pins.exists() is (code == 0)


def test_what_changed_is_shown_line_by_line(desk: Desk) -> None:
    """New, changed and gone tools by themselves; of a changed one the lines, with nothing invisible in them; what stayed
    keeps who pinned it, and when.
    """
    desk.says(ECHO, ECHO | {"name": "stays"}, ECHO | {"name": "goes"})
    assert desk.pin("--yes", "--by", "ada").returncode == 0
    first = load(PinFolder(desk.pins.parent).read()).by_tool
    evil = ECHO | {"description": "Says it.\nTwice,\u200b if \x1b[31masked.", "inputSchema": {"type": "object"}}
    desk.says(evil, ECHO | {"name": "stays"}, ECHO | {"name": "comes"})
    shown = desk.pin()
    assert shown.returncode == 1
    lines = shown.stdout.splitlines()
    assert "changed up/echo  in description, inputSchema; its server says: reads only, stays inside" in lines
    assert "    -description: Twice, if asked." in lines
    assert "    +description: Twice,\\u200b if \\u001b[31masked." in lines
    assert "    -inputSchema.properties.text.description: What to say." in lines
    assert "gone    up/goes  no longer listed" in lines
    assert lines[-1] == "up: 3 differences (1 new, 1 changed, 1 gone)."
    assert desk.pin("--yes", "--by", "bob").returncode == 0
    after = load(PinFolder(desk.pins.parent).read()).by_tool
    assert {name: pin.by for (_, name), pin in after.items()} == {"echo": "bob", "stays": "ada", "comes": "bob"}
    assert after["up", "stays"] == first["up", "stays"] or after["up", "stays"].at == first["up", "stays"].at
    assert "\\u200b" in desk.pins.read_text(encoding="utf-8")
    again = desk.pin()
    assert (again.returncode, again.stdout) == (0, "up: as pinned.\n")


def test_what_cant_be_pinned_is_said_and_the_rest_is(desk: Desk) -> None:
    """A schema that leads elsewhere, a name that no tool can have: each with its reason; exit code 1."""
    away = ECHO | {"name": "away", "inputSchema": {"$ref": "https://elsewhere.test/schema"}}
    desk.says(ECHO, away, ECHO | {"name": "no such\nname"})
    done = desk.pin("--yes")
    assert done.returncode == 1
    assert "can't be pinned up/away: its schema can't be used" in done.stdout
    assert "can't be pinned up/(the 3. of its list): its name is none that a tool can have" in done.stdout
    assert [name for _, name in load(PinFolder(desk.pins.parent).read()).by_tool] == ["echo"]


def test_programs_get_json(desk: Desk) -> None:
    """--json tells the differences and writes nothing unless --yes is said."""
    done = desk.pin("--json")
    (server,) = json.loads(done.stdout)["servers"]
    assert (done.returncode, server["written"], server["differences"][0]["event"]) == (1, "", "new")
    done = desk.pin("--json", "--yes")
    (server,) = json.loads(done.stdout)["servers"]
    assert (done.returncode, server["written"]) == (0, str(desk.pins))


def test_misuse_and_servers_that_are_down(desk: Desk) -> None:
    """A server that is none, pins that can't be read: misuse. One that gives no list: no, and its pins stay."""
    assert desk.pin("nobody").returncode == 2
    assert desk.pin("--yes").returncode == 0
    before = desk.pins.read_text(encoding="utf-8")
    (desk.folder / "tools.json").write_text("{", encoding="utf-8")
    down = desk.pin("--yes")
    assert (down.returncode, "can't be asked" in down.stderr) == (1, True)
    assert desk.pins.read_text(encoding="utf-8") == before
    desk.pins.write_text("{", encoding="utf-8")
    bad = desk.pin()
    assert (bad.returncode, "up.json:1:2: is no JSON" in bad.stderr) == (2, True)


def test_the_list_shows_what_is_pinned(desk: Desk) -> None:
    """A pinned tool is in the list, and says so."""
    assert desk.pin("--yes").returncode == 0
    done = desk.run("tools", "list", "--json")
    (row,) = json.loads(done.stdout)["tools"]
    assert (row["tool"], row["standing"], row["tier"], row["labels"]) == ("up/echo", "pinned", "high", ["untrusted"])


POLICY = """
policy: p
version: 1
owner: team@example.com
agents: ["*"]
rules:
  - id: say
    tools: [up/echo]
    when: args.text.size() < 100{more}
    permit: {{}}
    why: Short words.
tests:
  - given: {{tool: up/echo, args: {{text: hello}}}}
    expect: {{outcome: permitted}}
"""


def test_policies_are_checked_against_the_pins_beside_them(desk: Desk) -> None:
    """``policy check`` and ``policy test`` hold rules to ``pins`` beside the folder, and tests to what tools take."""
    assert desk.pin("--yes").returncode == 0
    folder = desk.folder / "policies"
    folder.mkdir()

    def policy(command: str, *more: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "whygate", "policy", command, str(folder), *more]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    (folder / "p.yaml").write_text(POLICY.format(more=""), encoding="utf-8")
    assert "Held to 1 pinned tools." in policy("check").stdout
    assert policy("test").returncode == 0
    (folder / "p.yaml").write_text(POLICY.format(more=" && args.txet != 'x'"), encoding="utf-8")
    for command in ("check", "test"):
        found = policy(command)
        assert found.returncode == 1
        assert "p.yaml:9:37: there is no argument `txet`: did you mean `text`? (as up/echo is pinned)" in found.stderr
    assert policy("check", "--pins", str(folder)).returncode == 0  # a folder without pins: nothing to hold them to
    assert policy("check", "--pins", str(desk.folder / "nothing")).returncode == 2
    wrong = POLICY.format(more="").replace("args: {text: hello}", "args: {text: hello, loud: true}")
    (folder / "p.yaml").write_text(wrong, encoding="utf-8")
    assert "args.schema_invalid" in policy("test").stdout
