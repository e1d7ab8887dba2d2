"""The console, without a browser: who gets in, what an answer is, and what an attacker gets."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.servers.gateway import Running, billing_tool, running

from whygate.console.passkeys import check
from whygate.core.approvals import Approval
from whygate.core.events import ApprovalRecord, Person
from whygate.core.records import Subject, decode
from whygate.core.shown import Choice
from whygate.testing.authenticator import Visitor
from whygate.testing.billing import BillingServer
from whygate.testing.threads import serving

RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: refund
    tools: [billing/refund]
    permit: {require: {human: {approvers: ["group:leads"], narrow: [args.amount_cents], for_task: 30m}}}
    why: Refunds need a lead.
  - id: no-reads
    tools: [billing/invoice_get]
    deny: {overridable: true}
    why: Not now.
  - {id: reads, tools: [billing/invoice_get], permit: {}, why: Reading is routine.}
"""
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202eevil\u2066" + "A" * 5000
REFUND: dict[str, Any] = {"invoice_id": "1042", "amount_cents": 5000, "note": HOSTILE}
ME = Subject(id="tests", proof="passkey", type="human")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    with serving(BillingServer("the-gateways-own-secret")) as server:
        tools = {"billing": billing_tool(server, tmp_path)}
        seen = {"jaeger": "http://127.0.0.1:16686/jaeger/"}
        async with running(tmp_path, tools, policies=str(tmp_path / "policies"), telemetry=seen) as made:
            yield made
            while HERE:
                HERE.pop().close()


HERE: list[Visitor] = []


def visitor(gateway: Running) -> Visitor:
    port = gateway.operators_url.rpartition(":")[2]
    HERE.append(Visitor(gateway.operators_url, f"http://localhost:{port}"))
    return HERE[-1]


async def enrolled(
    gateway: Running, name: str = "ada@example.com", *, roles: tuple[str, ...] = ("approver",)
) -> Visitor:
    """Somebody with a passkey, signed in, and one of the leads."""
    somebody = visitor(gateway)
    token = gateway.gateway.people.invite(Person(groups=("leads",), id=name, roles=roles))
    answer = await asyncio.to_thread(somebody.enrol, token)
    assert answer.status_code == 303, answer.text
    return somebody


async def asked(gateway: Running, **changed: Any) -> Approval:
    """A refund that waits for somebody."""
    async with httpx.AsyncClient(headers=gateway.headers(), timeout=20) as http:
        told = await http.post(f"{gateway.url}/http/billing/refunds", json=REFUND | changed)
    approval: Approval = gateway.gateway.authority.state.approvals[told.json()["approval"]]
    return approval


def approvals(gateway: Running, event: str) -> list[ApprovalRecord]:
    found = [decode(msgspec.json.encode(one)) for one in gateway.records() if one["kind"] == "approval"]
    return [one for one in found if isinstance(one, ApprovalRecord) and one.event == event]


async def test_an_answer_is_signed_over_what_was_shown(gateway: Running) -> None:
    """And the records alone are enough to check it, years later."""
    ada, approval = await enrolled(gateway), await asked(gateway)
    answer = await asyncio.to_thread(ada.answer, approval.id, approval.shown_digest)
    assert answer.status_code == 303
    (record,) = approvals(gateway, "approved")
    assert record.subject is not None
    assert (record.subject.id, record.proof) == ("ada@example.com", "passkey")
    assert record.signature is not None
    passkey = gateway.gateway.people.everybody()[0].passkeys[0]
    about = record.shown_digest, Choice(approve=True)
    host = ada.origin.partition("://")[2].partition(":")[0]
    assert check(record.signature, passkey, about, host, ada.origin)
    assert not check(
        record.signature, passkey, (record.shown_digest, Choice(approve=True, scope="task")), host, ada.origin
    )
    assert not check(record.signature, passkey, ("sha256:" + "0" * 64, Choice(approve=True)), host, ada.origin)
    async with httpx.AsyncClient(headers=gateway.headers()) as http:
        done = await http.post(f"{gateway.url}/http/billing/refunds", json=REFUND)
    assert done.status_code == 201


async def test_an_unsigned_or_changed_answer_is_none(gateway: Running) -> None:
    """No passkey, another choice than was signed, another document: nothing is approved, and each attempt is recorded."""
    ada, approval = await enrolled(gateway), await asked(gateway)
    path = f"/console/approvals/{approval.id}"
    plain = {"answer": "approve", "scope": "call", "shown_digest": approval.shown_digest}
    await asyncio.to_thread(ada.post, path, **plain)
    whole = {"csrf": await asyncio.to_thread(ada.csrf), **plain}
    told = (await asyncio.to_thread(ada.http.post, path + "/options", data=whole | {"answer": "deny"})).json()
    said = json.dumps({"ceremony": told["ceremony"], "response": ada.key.get(told["options"])})
    await asyncio.to_thread(ada.http.post, path, data={**whole, "nonce": told["nonce"], "passkey": said})
    await asyncio.to_thread(ada.answer, approval.id, "sha256:" + "0" * 64)
    assert approvals(gateway, "approved") == []
    assert gateway.gateway.authority.state.approvals[approval.id].open(gateway.gateway.authority.now_us())
    refused = [one for one in gateway.decisions() if one["action"]["name"].startswith("POST /console")]
    assert len(refused) >= 2


async def test_nobody_else_answers(gateway: Running) -> None:
    """Not somebody of another group, not an auditor, not whoever has only the link."""
    bob, approval = await enrolled(gateway, "bob@example.com"), await asked(gateway)
    person = gateway.gateway.people.find("bob@example.com")
    assert person is not None
    await gateway.gateway.people.change(msgspec.structs.replace(person, groups=("others",)), ME)
    await asyncio.to_thread(bob.answer, approval.id, approval.shown_digest)
    eve = visitor(gateway)
    page = await asyncio.to_thread(eve.http.get, f"/console/approvals/{approval.id}")
    assert page.status_code == 303
    assert page.headers["location"].startswith("/console/sign-in")
    auditor = await enrolled(gateway, "carol@example.com", roles=("auditor",))
    refused = await asyncio.to_thread(
        auditor.post, f"/console/approvals/{approval.id}", answer="approve", shown_digest=approval.shown_digest
    )
    assert refused.status_code == 403
    assert approvals(gateway, "approved") == []


async def test_hostile_text_stays_text(gateway: Running) -> None:
    """Markup is escaped, and what hides is made to show, whole: an approver sees all that they sign."""
    ada, approval = await enrolled(gateway), await asked(gateway)
    page = (await asyncio.to_thread(ada.http.get, f"/console/approvals/{approval.id}")).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "⟨U+202E⟩" in page
    assert "⟨U+001B⟩" in page
    assert "\x1b" not in page
    assert "A" * 5000 in page


async def test_forms_need_their_token_and_pages_their_headers(gateway: Running) -> None:
    """No form of another site's counts, and no page can be framed."""
    ada, approval = await enrolled(gateway), await asked(gateway)
    path = f"/console/approvals/{approval.id}"
    forged = await asyncio.to_thread(ada.http.post, path, data={"answer": "approve", "csrf": "x"})
    crossed = await asyncio.to_thread(
        ada.http.post, path, data={"answer": "approve"}, headers={"sec-fetch-site": "cross-site"}
    )
    other = await asyncio.to_thread(ada.http.post, path, data={}, headers={"origin": "http://evil.example"})
    assert (forged.status_code, crossed.status_code, other.status_code) == (403, 403, 403)
    page = await asyncio.to_thread(ada.http.get, "/console")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"


async def test_a_session_is_new_at_each_sign_in_and_gone_after_it(gateway: Running) -> None:
    """No fixation, no way back after signing out, none after being removed."""
    ada = await enrolled(gateway)
    first = ada.http.cookies["whygate"]
    assert (await asyncio.to_thread(ada.sign_in)).status_code == 303
    second = ada.http.cookies["whygate"]
    assert first != second
    await asyncio.to_thread(ada.post, "/console/sign-out")
    for cookie in (first, second, "chosen-by-somebody"):
        ada.http.cookies.clear()
        page = await asyncio.to_thread(ada.http.get, "/console", headers={"cookie": f"whygate={cookie}"})
        assert page.status_code == 303


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/console/../evil", "/elsewhere", "/console\\@evil"]
)
async def test_nothing_leads_elsewhere(gateway: Running, path: str) -> None:
    """After signing in, one goes to a page of the console's."""
    ada = await enrolled(gateway)
    told = (await asyncio.to_thread(ada.http.post, "/console/sign-in/options")).json()
    said = json.dumps({"ceremony": told["ceremony"], "response": ada.key.get(told["options"])})
    answer = await asyncio.to_thread(ada.http.post, "/console/sign-in", data={"passkey": said, "next": path})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console")
    assert "evil" not in answer.headers["location"].partition("/console")[0]


async def test_guessing_is_slowed_down_and_replays_are_nothing(gateway: Running) -> None:
    """A challenge is good once; after some failures a source has to wait."""
    ada, eve = await enrolled(gateway), visitor(gateway)
    told = (await asyncio.to_thread(ada.http.post, "/console/sign-in/options")).json()
    said = json.dumps({"ceremony": told["ceremony"], "response": ada.key.get(told["options"])})
    assert (await asyncio.to_thread(ada.http.post, "/console/sign-in", data={"passkey": said})).status_code == 303
    statuses = [
        (await asyncio.to_thread(eve.http.post, "/console/sign-in", data={"passkey": said})).status_code
        for _ in range(7)
    ]
    assert statuses[:5] == [403] * 5
    assert 429 in statuses
    assert "agent.unauthenticated" in {one["reason"]["code"] for one in gateway.decisions()}


async def test_a_link_works_once(gateway: Running) -> None:
    """And makes nobody but whom it names."""
    token = gateway.gateway.people.invite(Person(id="dan@example.com", roles=("approver",)))
    dan, eve = visitor(gateway), visitor(gateway)
    assert (await asyncio.to_thread(dan.enrol, token)).status_code == 303
    assert (await asyncio.to_thread(eve.http.get, f"/console/enrol?token={token}")).status_code == 410
    assert [person.id for person in gateway.gateway.people.everybody()] == ["dan@example.com"]


async def test_break_glass_from_opening_to_review(gateway: Running) -> None:
    """Each call under it is an exception; who opened it does not review it; while a review is owed too long, none is opened."""
    grace = await enrolled(gateway, "grace@example.com", roles=("breakglass",))
    fields = {"agents": "agent:support", "tools": "billing/*", "incident": "INC-7", "minutes": "30", "reason": "Down."}
    assert (await asyncio.to_thread(lambda: grace.post("/console/breakglass", **fields))).status_code == 303
    async with httpx.AsyncClient(headers=gateway.headers()) as http:
        done = await http.get(f"{gateway.url}/http/billing/invoices/1042")
    assert done.status_code == 200
    assert done.headers["whygate-reason"] == "break_glass.invoked"
    (opened,) = gateway.gateway.authority.state.breakglass
    await asyncio.to_thread(grace.post, f"/console/breakglass/{opened}/close")
    async with httpx.AsyncClient(headers=gateway.headers()) as http:
        over = await http.get(f"{gateway.url}/http/billing/invoices/1042")
    assert over.status_code == 403
    path = f"/console/breakglass/{opened}/review"
    await asyncio.to_thread(lambda: grace.post(path, finding="justified", note="Mine."))
    assert gateway.gateway.authority.state.reviews
    heidi = await enrolled(gateway, "heidi@example.com", roles=("operator",))
    await asyncio.to_thread(lambda: heidi.post(path, finding="justified", note="It was down."))
    assert not gateway.gateway.authority.state.reviews


async def test_one_decision_is_told_whole(gateway: Running) -> None:
    """Who, each rule's answer, the rule that decided, what became of it, and the way into the trace."""
    ada, approval = await enrolled(gateway), await asked(gateway)
    page = (await asyncio.to_thread(ada.http.get, f"/console/decisions/{approval.decision}")).text
    record = next(one for one in gateway.decisions() if one["id"] == approval.decision)
    for part in ("agent:support", "support/refund", "decided", "Refunds need a lead.", "Nothing was sent."):
        assert part in page
    assert f'href="http://127.0.0.1:16686/jaeger/trace/{record["context"]["trace_id"]}"' in page
