"""The commands for what people decide: lists from the ledger's file, changes through a gateway that runs."""

import asyncio
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import respx
from rich.console import Console
from tests.edges import cli_world as world
from tests.edges import test_operators_people as people
from tests.edges.test_cli_reading import Ran
from tests.servers.gateway import Running

from whygate.cli import approvals as verbs
from whygate.cli import question
from whygate.core.approvals import Asked
from whygate.core.decision import ApprovalUsed
from whygate.core.events import (
    AgentRecord,
    ApprovalRecord,
    BreakGlassRecord,
    GrantRecord,
    Person,
    PersonRecord,
    ReviewRecord,
    WaiverRecord,
)
from whygate.core.exceptions import BreakGlass, Grant, Review, Waiver
from whygate.core.reasons import Code
from whygate.core.records import AnyRecord, Subject

gateway = people.gateway
LEAD = Subject(id="lead@example.com", proof="passkey", type="human")


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WHYGATE_LEDGER", "WHYGATE_CONFIG", "WHYGATE_TOKEN", "WHYGATE_URL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda _: True)


def run(*words: object, **env: str) -> Ran:
    return Ran(words, env or None)


class Answered:
    """A task in which a call was asked about, agreed to, and came back."""

    def __init__(self) -> None:
        self.opened = world.opened()
        name = world.new_id()
        used = ApprovalUsed(id=name)
        self.asking = world.refund_challenged(approval=used)
        asked = Asked(
            approvers=("group:finance-leads",),
            policy="support-agent",
            principal="agent:support",
            rule="refund-large",
            rule_digest="d",
            task=world.TASK,
            tool="billing/refund",
            within_s=10**9,
        )
        common: dict[str, Any] = {
            "approval": name,
            "kind": "approval",
            "task": world.TASK,
            "trace": world.TRACE,
            "v": 1,
        }
        self.question = ApprovalRecord(asked=asked, decision=self.asking.id, event="asked", id=name, **common)
        self.answer = ApprovalRecord(
            event="approved", id=world.new_id(), proof="passkey", scope="call", subject=LEAD, note="is fine", **common
        )
        self.retry = world.decision(Code.STEP_UP_SATISFIED, approval=used)
        self.end = world.completion(self.retry)

    @property
    def records(self) -> list[AnyRecord]:
        return [self.opened, self.asking, self.question, self.answer, self.retry, self.end]


def others() -> list[AnyRecord]:
    """One record of each other kind."""
    grant = Grant(
        entitlement="writer", id=world.new_id(), principal="agent:support", tools=("billing/*",), until_us=2**52
    )
    waiver = Waiver(id=world.new_id(), name="freeze", owner="ops", policy="p", rule="r", by=LEAD.id, until_us=2**52)
    opened = BreakGlass(
        agents=("agent:support",),
        by=LEAD.id,
        id=world.new_id(),
        incident="INC-7",
        tools=("*",),
        until_us=2**52,
        team="t",
    )
    owed = Review(by=LEAD.id, due_us=2**51, id=opened.id, incident="INC-7", team="t")
    return [
        GrantRecord(event="granted", grant=grant, id=grant.id, kind="grant", v=1),
        WaiverRecord(event="added", id=waiver.id, kind="waiver", subject=LEAD, v=1, waiver=waiver),
        BreakGlassRecord(breakglass=opened, event="opened", id=opened.id, kind="breakglass", subject=LEAD, v=1),
        ReviewRecord(event="owed", id=world.new_id(), kind="review", review=owed, v=1),
        AgentRecord(agent="agent:odd", event="suspended", id=world.new_id(), kind="agent", subject=LEAD, v=1),
        PersonRecord(event="enrolled", id=world.new_id(), kind="person", person=Person(id=LEAD.id), subject=LEAD, v=1),
    ]


# --- why, task, tail ---


def test_a_task_reads_as_one_story(tmp_path: Path) -> None:
    """The question and its answer stand under the call that asked; under the call that came back, what permitted it."""
    made = Answered()
    world.write(tmp_path / "l.db", *made.records)
    ran = run("task", world.TASK, "--ledger", tmp_path / "l.db")
    assert "APPROVAL asked: agent:support for billing/refund; asked of group:finance-leads" in ran.flat
    assert ran.flat.count("APPROVAL approved by lead@example.com, by a passkey") == 2
    calls = run("task", world.TASK, "--ledger", tmp_path / "l.db", "--json").json["calls"]
    assert [len(call["people"]) for call in calls] == [2, 1]


def test_why_tells_who_answered(tmp_path: Path) -> None:
    """Of the call that asked, of the one that came back, and of the approval itself."""
    made = Answered()
    world.write(tmp_path / "l.db", *made.records)
    for asked in (made.asking.id, made.retry.id, made.question.id):
        ran = run("why", asked, "--ledger", tmp_path / "l.db")
        assert "APPROVAL approved by lead@example.com, by a passkey" in ran.flat, asked
    told = run("why", made.answer.id, "--ledger", tmp_path / "l.db", "--json").json["event"]
    assert told["details"] | {"by": "lead@example.com", "note": "is fine", "covers": "this one call"} == told["details"]


def test_every_record_of_people_is_told(tmp_path: Path) -> None:
    """By why and by tail, in words; none breaks the reader."""
    found = others()
    world.write(tmp_path / "l.db", *Answered().records, *found)
    for record in found:
        ran = run("why", record.id, "--ledger", tmp_path / "l.db")
        assert ran.code == 0
        assert ran.out.split("\n")[0].startswith(("GRANT", "WAIVER", "BREAK-GLASS", "REVIEW", "AGENT", "PERSON"))
    tail = run("tail", "--no-follow", "-n", 50, "--ledger", tmp_path / "l.db").out
    assert [
        word for word in ("GRANT", "WAIVER", "BREAK-GLASS", "REVIEW", "AGENT", "PERSON", "APPROVAL") if word not in tail
    ] == []
    assert "APPROVAL" not in run("tail", "--no-follow", "--outcome", "permitted", "--ledger", tmp_path / "l.db").out


# --- lists ---


def test_lists_read_the_ledger(tmp_path: Path) -> None:
    """With no gateway and no token: what is in force, as text and as JSON."""
    path = tmp_path / "l.db"
    made = Answered()
    world.write(path, made.opened, made.asking, made.question, *others())
    assert made.question.id in run("approvals", "list", "--ledger", path).out
    assert [one["id"] for one in run("approvals", "list", "--ledger", path, "--json").json["waiting"]] == [
        made.question.id
    ]
    assert "writer" in run("grants", "list", "--ledger", path).out
    assert run("waivers", "list", "--ledger", path, "--json").json["waivers"][0]["name"] == "freeze"
    assert "INC-7" in run("breakglass", "list", "--ledger", path).out
    assert len(run("breakglass", "list", "--ledger", path, "--json").json["reviews"]) == 1
    shown = run("approvals", "show", made.question.id[:8], "--ledger", path)
    assert shown.code == 0
    assert "can't be shown here" in shown.out


def test_what_is_over_is_shown_from_its_records(tmp_path: Path) -> None:
    """An approval that was used up; and of none it is said that there is none."""
    made = Answered()
    path = tmp_path / "l.db"
    world.write(
        path,
        *made.records,
        ApprovalRecord(approval=made.question.id, event="revoked", id=world.new_id(), kind="approval", v=1),
    )
    assert run("approvals", "show", made.question.id, "--ledger", path, "--json").json["state"] == "revoked"
    assert run("approvals", "show", "0" * 12, "--ledger", path).code == 1


# --- through the gateway ---


def test_a_change_needs_a_token_from_the_environment() -> None:
    """No option takes it."""
    ran = run("agents", "suspend", "agent:x", "--url", "http://127.0.0.1:1")
    assert (ran.code, "WHYGATE_TOKEN" in ran.err) == (2, True)


def test_a_gateway_that_is_not_there_is_misuse() -> None:
    """It is said where it was looked for."""
    ran = run("grants", "revoke", "x", "--url", "http://127.0.0.1:1", WHYGATE_TOKEN="t")
    assert (ran.code, "127.0.0.1:1" in ran.err) == (2, True)


@respx.mock
def test_the_gateways_no_is_said_with_its_code() -> None:
    """And where one can finish; exit code 1."""
    problem = {
        "detail": "finish with\x1b[2J your passkey",
        "code": "authn.insufficient",
        "console": "http://c/x",
        "id": "0192",
    }
    respx.post("http://g/v1/agents/resume").respond(403, json=problem)
    ran = run("agents", "resume", "agent:x", "--url", "http://g", WHYGATE_TOKEN="t")
    assert (ran.code, ran.out) == (1, "")
    for word in ("authn.insufficient", "http://c/x", "whygate why 0192"):
        assert word in ran.err
    assert "\x1b[2J" not in ran.err


async def test_the_verbs_work_with_a_gateway(gateway: Running) -> None:
    """Each of them once, as an operator; a question is shown whole, with what would move a terminal made visible."""
    asked = await people.asked(gateway)
    token = gateway.headers(people.OPERATOR, roles=["operator"])["authorization"].removeprefix("Bearer ")
    env = {"WHYGATE_TOKEN": token, "WHYGATE_URL": gateway.operators_url}

    async def does(*words: object) -> Ran:
        return await asyncio.to_thread(run, *words, **env)

    shown = await does("approvals", "show", asked.id)
    assert 'note = "\\u001b[2Jhello"' in shown.out
    assert "amount_cents = 20000  <-" in shown.out
    assert "the tool's own words" in shown.out
    assert "\x1b" not in shown.out
    assert "allows exactly this call" in shown.flat
    assert asked.id in (await does("approvals", "list")).out
    assert (await does("agents", "suspend", "agent:support", "--note", "odd")).code == 0
    assert "switched off" in (await does("agents", "list")).out
    assert (await does("agents", "resume", "agent:support")).code == 0
    added = await does(
        "waivers", "add", "freeze", "--rule", "support-agent/frozen", "--owner", "ops", "--days", 2, "--reason", "x"
    )
    assert added.code == 0, added.err
    assert (await does("waivers", "end", "freeze")).code == 0
    assert (await does("grants", "revoke", "x")).code == 1
    assert (await does("breakglass", "close", "x")).code == 1
    assert (await does("breakglass", "review", "x", "--finding", "justified", "--note", "x")).code == 1


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "whygate.yaml"
    path.write_text("ledger: l.db\npolicies: policies\nconsole_url: http://localhost:8701\n", encoding="utf-8")
    return path


def test_a_terminal_approves_nothing(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows, prints the page, opens it, and waits: for a yes 0, for silence and for a no 1."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(verbs, "POLL_S", 0)
    made = Answered()
    world.write(tmp_path / "l.db", made.opened, made.asking, made.question)
    url = f"http://localhost:8701/console/approvals/{made.question.id}"
    ran = run("approvals", "approve", made.question.id, "--no-wait")
    assert (ran.code, url in ran.out, opened) == (0, True, [url])
    ran = run("approvals", "deny", made.question.id, "--no-wait", "--no-browser", "--json")
    assert (ran.json["state"], ran.json["console"], len(opened)) == ("pending", url, 1)

    def refused(_: object, one: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
        assert not quiet
        return {**one, "state": "denied"}

    monkeypatch.setattr(verbs, "_wait", refused)
    assert run("approvals", "approve", made.question.id).code == 1
    assert run("approvals", "deny", made.question.id).code == 0


def test_a_break_glass_is_opened_in_a_browser(config: Path) -> None:
    """The page, filled in."""
    ran = run(
        "breakglass", "open", "--agent", "agent:x", "--tool", "billing/*", "--incident", "INC-7", "--reason", "a b"
    )
    assert ran.code == 0
    assert (
        "http://localhost:8701/console/breakglass?agent=agent%3Ax&tools=billing%2F%2A&minutes=30&incident=INC-7&reason=a+b"
        in ran.out
    )


def test_arguments_are_laid_out_whole() -> None:
    """One leaf a line, marked where policy looked; nothing is cut."""
    lines = question.laid_out({"a": {"b": [1, {"c": "x" * 5000}]}, "d": "\u202e"}, ("args.a.b",))
    assert lines[0] == "a.b[0] = 1  <-"
    assert len(lines[1]) > 5000
    assert lines[2] == 'd = "\\u202e"'
    assert json.loads(lines[2].partition(" = ")[2]) == "\u202e"
    console = Console(record=True, width=100)
    now = datetime.datetime(2026, 11, 27, tzinfo=datetime.UTC)
    assert question.standing({"state": "pending", "answer_by": "2026-11-27T00:02:00+00:00"}, now).startswith("Waits")
    assert console.export_text() == ""


class _Answering:
    """Says twice that it waits, then that somebody refused."""

    def __init__(self) -> None:
        self.asked = 0

    def approval(self, identity: str) -> dict[str, Any]:
        self.asked += 1
        return {**_pending(identity), "state": "denied" if self.asked > 2 else "pending"}


def _pending(identity: str, left_s: int = 120) -> dict[str, Any]:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=left_s)
    return {"id": identity, "state": "pending", "answer_by": until.isoformat()}


def test_waiting_ends_with_the_answer_or_with_the_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a countdown on stderr; silence is a refusal."""
    monkeypatch.setattr(verbs, "POLL_S", 0)
    held: Any = _Answering()
    assert verbs._wait(held, _pending("x"), quiet=False)["state"] == "denied"
    assert "Waiting for the answer: 1:59 left" in capsys.readouterr().err
    assert verbs._wait(held, _pending("x", -1), quiet=True)["state"] == "expired"
