"""The pages that can drift from the code can't: they are made from it, and this compares.

``python -m tests.test_docs`` writes them anew. The table of settings has its own generator beside its own tests
(``tests/core/config_reference.py``).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.edges import cli_world as world
from tests.edges import test_cli_people as people

from whygate.cli import main as cli
from whygate.cli import words
from whygate.cli.schema import KINDS, config_schema, record_schema
from whygate.core import records
from whygate.core.identity import IdentityType, Proof
from whygate.core.reasons import Code, Next, Outcome
from whygate.core.records import LifeRecord, PolicyFile, PolicyRecord, ToolRecord
from whygate.stores.reader import Reader

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- commands: generated from the commands themselves -->\n", "<!-- end of commands -->\n"

OUTCOMES = {
    Outcome.PERMITTED: "A standing rule permits the call, or a person did.",
    Outcome.ELEVATED: "Allowed only because a temporary elevation is active.",
    Outcome.EXCEPTION: "A waiver or break-glass overrode a refusal that may be overridden; somebody has to look at it.",
    Outcome.CHALLENGED: "Refused for now: it would be allowed after what `next` says.",
    Outcome.BLOCKED: "Refused: by a rule, by a check before all rules, or because no rule permits it.",
    Outcome.ERROR: "Refused, because it could not be decided. What can't be read opens no door.",
}
NEXT = {
    Next.NONE: "Nothing: the call was allowed, or repeating it will not help.",
    Next.FIX_CALL: "Correct the call and send it again.",
    Next.FIX_CREDENTIAL: "Come with a valid credential.",
    Next.REQUEST: "Ask for it, or have a person asked.",
    Next.RETRY: "Try the same call again later.",
    Next.WAIT: "Wait for an answer that is on its way.",
}

CODES_HEAD = """\
# Outcomes and reason codes

Every decision has one outcome and one reason code: in its record, its span, its metrics, and in the answer to the agent.
Both lists are closed. A code has one outcome, is never renamed, and a retired one is never given a new meaning. A reader
that meets a code it does not know goes by the outcome.

This page is made from `src/whygate/core/reasons.py`.
"""


# --- pages ---


def reason_codes() -> str:
    """docs/reason-codes.md."""
    lines = [CODES_HEAD, "## Outcomes", "", "| outcome | effect | meaning |", "|---|---|---|"]
    lines += [f"| `{each}` | {each.effect} | {OUTCOMES[each]} |" for each in Outcome]
    lines += ["", "## What the caller can do now", "", "`next` in every answer.", "", "| next | meaning |", "|---|---|"]
    lines += [f"| `{each}` | {NEXT[each]} |" for each in Next]
    for outcome in (*Outcome, None):
        lines += ["", f"## {heading(outcome)}", "", *table(outcome)]
    return "\n".join(lines) + "\n"


def heading(outcome: Outcome | None) -> str:
    return outcome.capitalize() if outcome is not None else "What became of an allowed call"


def table(outcome: Outcome | None) -> list[str]:
    lines = ["| code | meaning | what the agent is told | next | what to do about it |", "|---|---|---|---|---|"]
    for code in Code:
        entry = code.entry
        if entry.outcome is outcome:
            cells = (f"`{code}`", entry.meaning, entry.user, f"`{entry.next}`", entry.remedy or "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def commands() -> str:
    """The part of docs/cli.md that lists every command with its options."""
    lines = []
    for name in cli.COMMANDS:
        for path, command in leaves(cli.load(name), [name]):
            lines += command_lines(" ".join(path), command)
    return "\n".join(lines) + "\n"


def leaves(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
    else:
        for name, each in below.items():
            yield from leaves(each, [*path, name])


def command_lines(path: str, command: Any) -> list[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = "".join(f" {each.metavar or each.name.upper()}" for each in arguments)
    lines = [f"### `whygate {path}{usage}`", "", *command.help.split("\n"), ""]
    rows = [row(each) for each in command.params if not getattr(each, "hidden", False)]
    return [*lines, "| | | default |", "|---|---|---|", *rows, ""] if rows else lines


def row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    names = (
        [parameter.metavar or parameter.name.upper()] if is_argument else [*parameter.opts, *parameter.secondary_opts]
    )
    default = "" if parameter.default in (None, "", False) or parameter.required else f"`{parameter.default}`"
    if parameter.required:
        default = "required"
    if parameter.envvar:
        default = f"{default} (`${parameter.envvar}`)".strip()
    text = (parameter.help or "").replace("|", "\\|")
    return f"| {', '.join(f'`{name}`' for name in names)} | {text} | {default} |"


def split(page: str) -> tuple[str, str, str]:
    match = re.fullmatch(f"(.*{re.escape(BEGIN)})(.*)({re.escape(END)}.*)", page, re.DOTALL)
    assert match is not None, "docs/cli.md has lost its marks"
    return match[1], match[2], match[3]


def as_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2) + "\n"


def pages() -> dict[Path, str]:
    """What has to be in each page that is made from code."""
    before, _, after = split((DOCS / "cli.md").read_text(encoding="utf-8"))
    return {
        DOCS / "reason-codes.md": reason_codes(),
        DOCS / "cli.md": before + commands() + after,
        DOCS / "schema" / "record.v1.json": as_text(record_schema()),
        DOCS / "schema" / "config.v1.json": as_text(config_schema()),
    }


def write() -> None:
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


# --- tests ---


@pytest.mark.parametrize("name", ["reason-codes.md", "cli.md", "schema/record.v1.json", "schema/config.v1.json"])
def test_a_page_says_what_the_code_does(name: str) -> None:
    """Reason codes, commands, options and schemas are published as they are (python -m tests.test_docs)."""
    path = DOCS / name
    assert path.read_text(encoding="utf-8") == pages()[path]


def test_every_code_is_on_the_page_once() -> None:
    """The table leaves none out."""
    page = (DOCS / "reason-codes.md").read_text(encoding="utf-8")
    assert [code for code in Code if page.count(f"| `{code}` |") != 1] == []


def test_every_command_is_named_in_the_prose() -> None:
    """Beside the reference, docs/cli.md says of each command what it is for."""
    prose = split((DOCS / "cli.md").read_text(encoding="utf-8"))[0]
    assert [name for name in cli.COMMANDS if f"`whygate {name}" not in prose] == []


RECORDS = [
    world.opened(),
    world.decision(),
    world.refund_denied(),
    world.refund_challenged(),
    world.decision(Code.TOOL_UNKNOWN, context=world.claimed("x")),
    world.completion(world.decision()),
    PolicyRecord(
        digest="sha256:1",
        event="in_force",
        files=(PolicyFile(digest="d", name="a.yaml"),),
        id=world.new_id(),
        kind="policy",
        v=1,
    ),
    ToolRecord(
        cause="look",
        definition="sha256:2",
        event="changed",
        id=world.new_id(),
        kind="tool",
        pinned="sha256:1",
        tool="up/echo",
        v=1,
    ),
    *people.Answered().records[2:4],
    *people.others(),
    *(LifeRecord(data={"version": "1"}, id=world.new_id(), kind=kind, v=1) for kind in KINDS[LifeRecord]),
]


@pytest.fixture(scope="module")
def published() -> jsonschema.Draft202012Validator:
    schema = json.loads((DOCS / "schema" / "record.v1.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def stored(tmp_path: Path) -> list[dict[str, Any]]:
    world.write(tmp_path / "l.db", *RECORDS)
    with Reader(tmp_path / "l.db") as reader:
        return [json.loads(data) for _, data in reader.since(0)]


def test_records_are_as_published(published: jsonschema.Draft202012Validator, tmp_path: Path) -> None:
    """Every kind of record that a ledger writes fits the published schema, and only that of its kind."""
    found = stored(tmp_path)
    assert {record["kind"] for record in found} == set(records._BY_KIND)
    for record in found:
        published.validate(record)


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"kind": "later"}, {"outcome": "maybe"}, {"effect": "deny", "seq": "1"}, {"subject": None}]
)
def test_what_is_no_record_does_not_fit(
    published: jsonschema.Draft202012Validator, tmp_path: Path, change: dict[str, Any]
) -> None:
    """The schema can say no."""
    record = next(each for each in stored(tmp_path) if each["kind"] == "decision")
    assert published.is_valid(record)
    assert not published.is_valid(record | change)
    assert not published.is_valid({name: value for name, value in record.items() if name != "time"})
    assert published.is_valid(record | {"of_a_later_version": True})


def test_the_closed_lists_have_words() -> None:
    """Outcomes and what to do next are explained, identities and proofs are named."""
    assert set(OUTCOMES) == set(Outcome)
    assert set(NEXT) == set(Next)
    assert set(words.NEXT) == set(Next)
    assert set(words.IDENTITIES) == set(IdentityType)
    assert set(words.PROOFS) == set(Proof)


if __name__ == "__main__":
    write()
