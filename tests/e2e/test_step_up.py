"""A person agrees, or not: by every rung of the ladder, with real clients."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.servers.gateway import Running, billing_tool, running
from tests.stepping_up import answer, codes, somebody

from whygate.core.records import Subject
from whygate.flow.emergencies import Emergencies
from whygate.flow.policies import Asked as Command
from whygate.flow.policies import Cause
from whygate.testing.billing import BillingServer
from whygate.testing.threads import serving

RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: echo
    tools: [tools/echo]
    permit: {}
    why: Harmless.
  - id: add
    tools: [tools/add]
    when: args.a <= 1000
    permit: {require: {human: {approvers: ["group:leads"], narrow: [args.a], within: 5m}}}
    why: Sums need a lead.
  - id: slow
    tools: [tools/slow]
    permit: {require: {human: {approvers: ["group:leads"], client_answers: true}}}
    why: Where the client's process is trusted.
  - id: fail
    tools: [tools/fail]
    permit: {require: {grant: {entitlement: failing, approvers: ["group:leads"], max_ttl: 15m, max_uses: 2}}}
    why: Only under an elevation.
"""


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    command = [sys.executable, "-m", "whygate.testing.mcp_server"]
    async with running(tmp_path, {"tools": {"mcp": {"command": command}}}, policies=str(tmp_path / "policies")) as made:
        yield made


class Asked:
    """What a client is asked, and what its user says."""

    def __init__(self, action: str = "accept", content: dict[str, Any] | None = None) -> None:
        self.action, self.content = action, content
        self.questions: list[Any] = []

    async def __call__(self, _: Any, params: Any) -> types.ElicitResult:
        self.questions.append(params)
        return types.ElicitResult(action=self.action, content=self.content)


@asynccontextmanager
async def client(
    gateway: Running, mode: str, asked: Asked | None, path: str = "tools", **headers: str
) -> AsyncIterator[Client]:
    more = {} if asked is None else {"elicitation_callback": asked}
    address = f"{gateway.url}/mcp/{path}".rstrip("/")
    async with (
        httpx2.AsyncClient(headers=gateway.headers() | headers, timeout=30) as http,
        Client(streamable_http_client(address, http_client=http), mode=mode, **more) as made,
    ):
        yield made


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
@pytest.mark.parametrize("path", ["tools", ""])
async def test_a_client_that_can_show_a_page_is_sent_there(gateway: Running, mode: str, path: str) -> None:
    """By ``input_required``, or by a question on the stream; once a person agrees the call runs, in the same request of the
    caller's.
    """
    asked, name = Asked(), "add" if path else "tools__add"
    async with client(gateway, mode, asked, path) as agent, somebody(gateway):
        result = await agent.call_tool(name, {"a": 1, "b": 2})
    assert not result.is_error, result
    assert result.content[0].text == "3"
    (question,) = asked.questions
    assert question.mode == "url"
    assert question.url.startswith("http://localhost:")
    assert codes(gateway)[0] == "step_up.required"
    assert codes(gateway)[-1] == "step_up.satisfied"
    assert result.meta["dev.whygate/decision"]["code"] == "step_up.satisfied"


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_client_that_can_not_be_asked_is_held(gateway: Running, mode: str) -> None:
    """With signs of life; and what the person narrowed is what the tool gets."""
    async with client(gateway, mode, None) as agent, somebody(gateway, narrow={"args.a": 10}):
        result = await agent.call_tool("add", {"a": 100, "b": 2})
    assert not result.is_error, result
    assert result.content[0].text == "12"


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_refusal_is_told(gateway: Running, mode: str) -> None:
    """And holds: the same call is not asked about again."""
    async with client(gateway, mode, Asked()) as agent:
        async with somebody(gateway, approve=False):
            result = await agent.call_tool("add", {"a": 1, "b": 2})
        again = await agent.call_tool("add", {"a": 1, "b": 2})
    assert result.is_error
    assert again.is_error
    assert "step_up.denied" in result.content[0].text
    assert codes(gateway)[-2:] == ["step_up.denied", "step_up.denied"]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_an_answer_of_the_clients_process_is_never_a_persons(gateway: Running, mode: str) -> None:
    """Accepting the page, or declining it, is the client's: only a decline ends the wait, and nothing passes by it."""
    async with client(gateway, mode, Asked("decline")) as agent:
        result = await agent.call_tool("add", {"a": 1, "b": 2})
    assert result.is_error
    assert codes(gateway)[-1] == "step_up.denied"
    (cancelled,) = [one for one in gateway.records() if one["kind"] == "approval" and one["event"] == "cancelled"]
    assert cancelled["subject"]["id"] == "agent:support"


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_trusted_clients_form_counts_as_what_it_is(gateway: Running, mode: str) -> None:
    """Where policy says so, and recorded as the client's."""
    asked = Asked(content={"approve": True})
    async with client(gateway, mode, asked) as agent:
        result = await agent.call_tool("slow", {"steps": 1})
    assert not result.is_error, result
    assert asked.questions[0].mode == "form"
    (approved,) = [one for one in gateway.records() if one["kind"] == "approval" and one["event"] == "approved"]
    assert (approved["proof"], approved["subject"]["id"]) == ("client", "agent:support")


async def test_whoever_will_not_wait_is_told_what_to_do(gateway: Running) -> None:
    """The result explains, and the same call made again runs once it is answered."""
    async with client(gateway, "legacy", None, prefer="wait=0") as agent:
        told = await agent.call_tool("add", {"a": 1, "b": 2})
        assert told.is_error
        assert "/console/approvals/" in told.content[0].text
        await answer(gateway)
        result = await agent.call_tool("add", {"a": 1, "b": 2})
        once_more = await agent.call_tool("add", {"a": 1, "b": 2})
    assert not result.is_error
    assert once_more.is_error
    assert codes(gateway) == ["step_up.required", "step_up.satisfied", "step_up.required"]


async def test_an_elevation_is_asked_for_given_and_used_up(gateway: Running) -> None:
    """Through the gateway's own tools, by an agent that was told that it needs one."""
    async with client(gateway, "auto", None, "") as agent:
        names = [tool.name for tool in (await agent.list_tools()).tools]
        assert "whygate__request_elevation" in names
        first = await agent.call_tool("tools__fail", {"text": "x"})
        asked = await agent.call_tool(
            "whygate__request_elevation",
            {"entitlement": "failing", "reason": "The nightly run.", "arguments": {"text": "x*"}, "uses": 1},
        )
        approval = asked.structured_content["approval"]
        pending = await agent.call_tool("whygate__approval_status", {"approval": approval})
        await answer(gateway)
        done = await agent.call_tool("whygate__approval_status", {"approval": approval})
        other = await agent.call_tool("tools__fail", {"text": "y"})
        used = await agent.call_tool("tools__fail", {"text": "xyz"})
        spent = await agent.call_tool("tools__fail", {"text": "xyz"})
        why = await agent.call_tool("whygate__explain_decision", {"decision": first.meta["dev.whygate/decision"]["id"]})
    assert pending.structured_content["status"] == "pending"
    assert done.structured_content["status"] == "approved"
    seen = [one.meta["dev.whygate/decision"]["code"] for one in (first, other, used)]
    assert seen == ["jit.grant_required", "jit.out_of_scope", "jit.grant_active"]
    assert spent.meta["dev.whygate/decision"]["code"] == "jit.grant_expired"
    assert why.structured_content["entitlement"] == "failing"


async def test_a_held_call_of_a_suspended_agent_ends_at_once(gateway: Running) -> None:
    """The kill switch reaches those who wait."""
    async with client(gateway, "legacy", None) as agent:
        calling = asyncio.create_task(agent.call_tool("add", {"a": 1, "b": 2}))
        while not gateway.gateway.authority.state.approvals:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)
        owner = Subject(id="ada@example.com", proof="passkey", type="human")
        await Emergencies(gateway.gateway.authority).suspend("agent:support", owner, "It went wild.")
        result = await calling
    assert result.is_error
    assert codes(gateway)[-1] == "agent.suspended"


# --- plain HTTP ---


@pytest.fixture
async def billing(tmp_path: Path) -> AsyncIterator[Running]:
    rules = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: refund
    tools: [billing/refund]
    permit: {require: {human: {approvers: ["group:leads"], narrow: [args.amount_cents]}}}
    why: Refunds need a lead.
"""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(rules)
    with serving(BillingServer("the-gateways-own-secret")) as server:
        tools = {"billing": billing_tool(server, tmp_path)}
        async with running(tmp_path, tools, policies=str(tmp_path / "policies")) as made:
            yield made


REFUND: dict[str, Any] = {"invoice_id": "1042", "amount_cents": 5000}


async def test_plain_http_is_told_where_and_when(billing: Running) -> None:
    """A problem document with the page, and when to ask again; the same call made again then runs, once."""
    async with httpx.AsyncClient(headers=billing.headers(), timeout=30) as http:
        url = f"{billing.url}/http/billing/refunds"
        told = await http.post(url, json=REFUND)
        pending = await http.post(url, json=REFUND)
        await answer(billing)
        changed = await http.post(url, json=REFUND | {"amount_cents": 5001})
        done = await http.post(url, json=REFUND)
    assert (told.status_code, pending.status_code, changed.status_code) == (403, 403, 403)
    assert told.headers["content-type"] == "application/problem+json"
    assert int(told.headers["retry-after"]) > 0
    problem = told.json()
    assert problem["approval_url"].endswith(problem["approval"])
    assert pending.json()["code"] == "step_up.pending"
    assert changed.json()["code"] == "step_up.required"
    assert done.status_code == 201, done.text


async def test_plain_http_that_waits_is_held_and_narrowed(billing: Running) -> None:
    """``Prefer: wait``: the answer comes in the same exchange, and the tool gets what the person left of the amount."""
    headers = billing.headers() | {"prefer": "wait=20"}
    async with (
        httpx.AsyncClient(headers=headers, timeout=30) as http,
        somebody(billing, narrow={"args.amount_cents": 1200}),
    ):
        done = await http.post(f"{billing.url}/http/billing/refunds", json=REFUND)
    assert done.status_code == 201, done.text
    assert done.json()["refunded"] == 1200


async def test_scopes_and_sign_ins_are_asked_for_in_the_protocols_own_words(billing: Running, tmp_path: Path) -> None:
    """403 with all scopes at once, 401 with what the sign-in has to be; a token that brings it passes."""
    (tmp_path / "policies" / "support.yaml").write_text("""
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - {id: read, tools: [billing/invoice_get], permit: {require: {scope: [invoices, "invoices:read"]}}, why: Scoped.}
  - {id: refund, tools: [billing/refund], permit: {require: {authn: {max_age: 10m, acr: [gold]}}}, why: Fresh.}
""")
    await billing.gateway.reloader.reload(Command(cause=Cause.COMMAND))
    invoice, refunds = f"{billing.url}/http/billing/invoices/1042", f"{billing.url}/http/billing/refunds"
    act, now = {"sub": "agent:support"}, int(time.time())
    async with httpx.AsyncClient(timeout=30) as http:
        unscoped = await http.get(invoice, headers=billing.headers("ada@example.com", act=act))
        scoped = await http.get(
            invoice, headers=billing.headers("ada@example.com", act=act, scope="invoices invoices:read")
        )
        stale = await http.post(
            refunds, json=REFUND, headers=billing.headers("ada@example.com", act=act, auth_time=now - 700, acr="gold")
        )
        fresh = await http.post(
            refunds, json=REFUND, headers=billing.headers("ada@example.com", act=act, auth_time=now, acr="gold")
        )
    assert unscoped.status_code == 403
    assert 'error="insufficient_scope", scope="invoices invoices:read"' in unscoped.headers["www-authenticate"]
    assert scoped.status_code == 200
    assert stale.status_code == 401
    told = stale.headers["www-authenticate"]
    assert 'error="insufficient_user_authentication", acr_values="gold", max_age=600, resource_metadata=' in told
    assert (fresh.status_code, fresh.headers["whygate-reason"]) == (201, "authn.satisfied")
