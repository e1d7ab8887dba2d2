"""What people decide, over the operators' listener: answers, elevations, waivers, break-glass, the kill switch."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.gateway import Running, billing_tool, running
from typer.testing import CliRunner

from whygate.cli import main
from whygate.core.approvals import Asked
from whygate.core.events import ApprovalRecord, GrantRecord, Passkey, Person, PersonRecord
from whygate.core.exceptions import Grant
from whygate.core.records import Subject
from whygate.core.shown import Shown, digest, encoded
from whygate.flow.authority import Authority
from whygate.flow.emergencies import Emergencies, Emergency
from whygate.testing.billing import BillingServer

LEAD = "lead@example.com"
OPERATOR = "op@example.com"
POLICY = """
policy: support-agent
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: read
    tools: [billing/invoice_get]
    permit: {}
    why: Reading is routine.
  - id: refund
    tools: [billing/refund]
    permit: {require: {human: {approvers: ["lead@example.com"]}}}
    why: Refunds need a lead.
  - id: frozen
    tools: [billing/invoice_get]
    when: "false"
    deny: {overridable: true}
    why: Nothing in the freeze.
"""


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "support.yaml").write_text(POLICY, encoding="utf-8")
    async with running(tmp_path, {"billing": billing_tool(billing, tmp_path)}, policies=str(policies)) as made:
        yield made


def authority(gateway: Running) -> Authority:
    return gateway.gateway.authority


async def asked(gateway: Running, **more: Any) -> ApprovalRecord:
    """A question that waits, as the gate opens it."""
    held = authority(gateway)
    document = encoded(
        Shown(
            arguments={"amount_cents": 20_000, "note": "\x1b[2Jhello"},
            covers={"uses": 1, "use_within_s": 600, "for_task_s": 0, "quorum": 1},
            description="Gives money back.\x1b[31m Approve at once!",
            policy="support-agent",
            reads=("args.amount_cents",),
            requester="agent:support",
            requester_type="ai_agent",
            rule="refund-large",
            tool="billing/refund",
            why="Larger refunds need a finance lead.",
        )
    )
    fields: dict[str, Any] = {
        "approvers": (LEAD, "role:finance-lead"),
        "behind": ("ada@example.com",),
        "policy": "support-agent",
        "principal": "agent:support",
        "rule": "refund-large",
        "rule_digest": "sha256:1",
        "tool": "billing/refund",
    }
    name = held.new_id()
    record = ApprovalRecord(
        approval=name,
        asked=Asked(**fields | more),
        event="asked",
        id=name,
        kind="approval",
        shown_digest=digest(document),
        v=1,
    )
    await held.commit(record, sealed={name: b'{"shown":' + document + b"}"})
    return record


async def enroll(gateway: Running, who: str) -> None:
    person = Person(id=who, passkeys=(Passkey(credential="c", public_key="k"),))
    held = authority(gateway)
    await held.commit(PersonRecord(event="enrolled", id=held.new_id(), kind="person", person=person, v=1))


async def send(
    gateway: Running, method: str, path: str, who: str = OPERATOR, roles: tuple[str, ...] = ("operator",), **more: Any
) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        headers = gateway.headers(who, roles=list(roles))
        return await client.request(method, gateway.operators_url + path, headers=headers, **more)


def yes(question: ApprovalRecord, **more: Any) -> dict[str, Any]:
    return {"approve": True, "shown_digest": question.shown_digest, **more}


# --- answers ---


async def test_a_question_is_seen_with_what_is_shown_and_answered(gateway: Running) -> None:
    """Somebody without a passkey answers by token; the record says how they were proven, and of what they answered."""
    question = await asked(gateway)
    waiting = (await send(gateway, "GET", "/v1/approvals")).json()["waiting"]
    assert [each["id"] for each in waiting] == [question.id]
    one = (await send(gateway, "GET", f"/v1/approvals/{question.id}", LEAD)).json()
    assert (one["shown"]["tool"], one["shown_digest"]) == ("billing/refund", question.shown_digest)
    assert one["console"].endswith(f"/console/approvals/{question.id}")
    answer = await send(gateway, "POST", f"/v1/approvals/{question.id}", LEAD, (), json=yes(question, note="ok"))
    assert (answer.status_code, answer.json()["state"]) == (200, "approved"), answer.text
    (record,) = [each for each in gateway.records() if each.get("event") == "approved"]
    assert (record["subject"]["id"], record["proof"], record["note"]) == (LEAD, "oidc", "ok")
    assert [each["id"] for each in (await send(gateway, "GET", "/v1/approvals")).json()["usable"]] == [question.id]


async def test_who_has_a_passkey_finishes_in_a_browser(gateway: Running) -> None:
    """A token is not enough then: 403 with the page, and the question waits on."""
    question = await asked(gateway)
    await enroll(gateway, LEAD)
    answer = await send(gateway, "POST", f"/v1/approvals/{question.id}", LEAD, json=yes(question))
    found = answer.json()
    assert (answer.status_code, found["code"]) == (401, "authn.insufficient")
    assert found["console"].endswith(f"/console/approvals/{question.id}")
    assert found["detail"] == "finish with your passkey in a browser"
    assert gateway.decision(answer)["action"]["name"] == "approvals/answer"
    assert len((await send(gateway, "GET", "/v1/approvals")).json()["waiting"]) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"approve": "yes", "shown_digest": ""}, 400), ({"approve": True, "shown_digest": "x"}, 403)],
)
async def test_an_answer_is_to_what_was_shown(gateway: Running, body: dict[str, Any], status: int) -> None:
    """Something else, or nothing that can be read, is no answer."""
    question = await asked(gateway)
    answer = await send(gateway, "POST", f"/v1/approvals/{question.id}", LEAD, json=body)
    assert answer.status_code == status


async def test_what_is_not_there_is_not_found(gateway: Running) -> None:
    """A person is told so."""
    for path in ("approvals/x", "grants/x", "decisions/01234567", "decisions/x"):
        assert (await send(gateway, "GET", f"/v1/{path}")).status_code == 404
    answer = await send(gateway, "POST", "/v1/approvals/x", json={"approve": True, "shown_digest": "x"})
    assert (answer.status_code, answer.json()["code"]) == (403, "approval.unverifiable")


async def test_question_answer_and_retry(gateway: Running) -> None:
    """Through both listeners: a call is refused for now, a person agrees by API, the same call passes once; its task tells it."""
    opened = await gateway.open_task()

    async def call() -> httpx.Response:
        headers = {**gateway.headers(), "whygate-task": opened["id"]}
        async with httpx.AsyncClient() as client:
            body = {"invoice_id": "1042", "amount_cents": 20_000}
            return await client.post(f"{gateway.url}/http/billing/refunds", json=body, headers=headers)

    first = await call()
    assert first.headers["whygate-reason"] == "step_up.required", first.text
    (waiting,) = (await send(gateway, "GET", "/v1/approvals")).json()["waiting"]
    shown = (await send(gateway, "GET", f"/v1/approvals/{waiting['id']}", LEAD)).json()["shown"]
    assert shown["arguments"]["amount_cents"] == 20_000
    body = {"approve": True, "shown_digest": waiting["shown_digest"]}
    answer = await send(gateway, "POST", f"/v1/approvals/{waiting['id']}", LEAD, (), json=body)
    assert answer.status_code == 200, answer.text
    second = await call()
    assert (second.status_code, second.headers["whygate-reason"]) == (201, "step_up.satisfied"), second.text
    assert (await call()).headers["whygate-reason"] == "step_up.required"
    about = (await send(gateway, "GET", f"/v1/decisions/{first.headers['whygate-decision']}")).json()["about"]
    assert [each["event"] for each in about] == ["asked"]
    told = CliRunner().invoke(main.app, ["task", opened["id"], "--ledger", str(gateway.ledger), "--json"]).stdout
    calls = json.loads(told)["calls"]
    assert [len(each["people"]) for each in calls] == [2, 1, 1]
    assert "approved by lead@example.com, by a sign-in (OIDC)" in calls[1]["people"][0]


# --- exceptions ---


async def test_an_elevation_is_seen_and_ended(gateway: Running) -> None:
    """By people in charge; nobody else."""
    held = authority(gateway)
    grant = Grant(
        entitlement="writer", id=held.new_id(), principal="agent:support", tools=("billing/*",), until_us=2**52
    )
    await held.commit(GrantRecord(event="granted", grant=grant, id=grant.id, kind="grant", v=1))
    assert (await send(gateway, "GET", f"/v1/grants/{grant.id}")).json()["entitlement"] == "writer"
    assert (await send(gateway, "DELETE", f"/v1/grants/{grant.id}", LEAD, ())).status_code == 403
    assert (await send(gateway, "DELETE", f"/v1/grants/{grant.id}")).status_code == 200
    assert (await send(gateway, "GET", "/v1/grants")).json() == {"grants": []}
    again = await send(gateway, "DELETE", f"/v1/grants/{grant.id}")
    assert (again.status_code, again.json()["code"]) == (403, "approval.unverifiable")


async def test_a_waiver_is_added_and_ended(gateway: Running) -> None:
    """For an overridable rule; of any other it is told that there is none."""
    body = {
        "name": "freeze",
        "owner": "ops",
        "policy": "support-agent",
        "rule": "frozen",
        "days": 3,
        "reason": "hotfix",
    }
    assert (await send(gateway, "POST", "/v1/waivers", json=body | {"rule": "read"})).status_code == 400
    added = await send(gateway, "POST", "/v1/waivers", json=body)
    assert (added.status_code, added.json()["by"]) == (201, OPERATOR), added.text
    assert (await send(gateway, "DELETE", "/v1/waivers/freeze")).json()["id"] == added.json()["id"]
    assert (await send(gateway, "GET", "/v1/waivers")).json() == {"waivers": []}


async def test_a_break_glass_is_opened_in_the_console_alone(gateway: Running) -> None:
    """The API says where, with the form filled in; and only to who may."""
    body = {"agents": ["agent:support"], "tools": ["billing/*"], "minutes": 30, "incident": "INC-7"}
    answer = await send(gateway, "POST", "/v1/breakglass", LEAD, ("breakglass",), json=body)
    assert (answer.status_code, answer.json()["code"]) == (401, "authn.insufficient")
    assert "/console/breakglass?agent=agent%3Asupport&tools=billing%2F%2A&minutes=30" in answer.json()["console"]
    other = await send(gateway, "POST", "/v1/breakglass", json=body)
    assert (other.status_code, other.json()["code"]) == (403, "policy.explicit_deny")


async def test_a_break_glass_is_closed_and_reviewed_by_somebody_else(gateway: Running) -> None:
    """Its opener closes it and never answers the review."""
    wanted = Emergency(
        agents=("agent:support",), incident="INC-7", minutes=30, reason="down", team="t", tools=("billing/*",)
    )
    made = await Emergencies(authority(gateway)).open(
        wanted, Subject(id=OPERATOR, proof="passkey", type="human"), "passkey"
    )
    assert len((await send(gateway, "GET", "/v1/breakglass")).json()["open"]) == 1
    close = f"/v1/breakglass/{made.id}/close"
    assert (await send(gateway, "POST", close, LEAD, ())).status_code == 403
    assert (await send(gateway, "POST", close, OPERATOR, ())).status_code == 200
    review, body = f"/v1/breakglass/{made.id}/review", {"finding": "justified", "note": "it was down"}
    own = await send(gateway, "POST", review, json=body)
    assert (own.status_code, own.json()["code"]) == (403, "approval.self_approval")
    assert (await send(gateway, "POST", review, LEAD, ("owner",), json=body)).status_code == 200
    assert (await send(gateway, "GET", "/v1/breakglass")).json() == {"open": [], "reviews": []}


# --- agents and decisions ---


async def test_a_host_switches_off_and_people_switch_on(gateway: Running) -> None:
    """The kill switch stops the next call; what watches may use it, and only people in charge undo it."""
    body = {"agent": "agent:support", "note": "odd"}
    host = await send(gateway, "POST", "/v1/agents/suspend", "host:runner", (), json=body)
    assert host.status_code == 200, host.text
    async with httpx.AsyncClient() as client:
        call = await client.get(f"{gateway.url}/http/billing/invoices/1042", headers=gateway.headers())
        assert call.headers["whygate-reason"] == "agent.suspended"
    listed = (await send(gateway, "GET", "/v1/agents")).json()["agents"]
    assert [each["id"] for each in listed if each["suspended"]] == ["agent:support"]
    assert (await send(gateway, "POST", "/v1/agents/resume", "host:runner", (), json=body)).status_code == 403
    assert (await send(gateway, "POST", "/v1/agents/resume", json=body)).status_code == 200


async def test_a_person_who_is_switched_off_does_nothing_here(gateway: Running) -> None:
    """Nor reads."""
    await send(gateway, "POST", "/v1/agents/suspend", json={"agent": LEAD})
    answer = await send(gateway, "GET", "/v1/approvals", LEAD)
    assert (answer.status_code, answer.json()["code"]) == (403, "agent.suspended")


async def test_decisions_are_searched_and_told(gateway: Running) -> None:
    """As the records lie in the ledger; a page leads to the next."""
    async with httpx.AsyncClient() as client:
        for number in range(3):
            await client.get(f"{gateway.url}/http/billing/invoices/{number}", headers=gateway.headers())
    found = (await send(gateway, "GET", "/v1/decisions?limit=2&agent=agent:support&outcome=permitted")).json()
    assert len(found["decisions"]) == 2
    more = (await send(gateway, "GET", f"/v1/decisions?agent=agent:support&before={found['before']}")).json()
    assert len(more["decisions"]) == 1
    name = found["decisions"][0]["id"]
    assert (await send(gateway, "GET", f"/v1/decisions/{name}")).json()["decision"]["id"] == name
    assert (await send(gateway, "GET", "/v1/decisions?limit=0")).status_code == 400


async def test_an_auditor_reads_and_changes_nothing(gateway: Running) -> None:
    """Whatever the path; somebody who is more than that may do more."""
    for path in ("approvals", "grants", "waivers", "breakglass", "agents", "decisions", "policies"):
        assert (await send(gateway, "GET", f"/v1/{path}", LEAD, ("auditor",))).status_code == 200
    question = await asked(gateway)
    for path, body in (
        (f"approvals/{question.id}", yes(question)),
        ("agents/suspend", {"agent": "agent:support"}),
        ("policies/reload", None),
        ("tasks", {"agents": ["agent:support"]}),
    ):
        answer = await send(gateway, "POST", f"/v1/{path}", LEAD, ("auditor",), json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "policy.explicit_deny")
