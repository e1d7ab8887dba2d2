"""The operators' listener, and what both listeners say of themselves."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.servers.gateway import ISSUER, Running, billing_tool, running

from whygate.testing.billing import BillingServer


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    async with running(tmp_path, {"billing": billing_tool(billing, tmp_path)}) as made:
        yield made


async def test_people_and_named_hosts_open_tasks(gateway: Running) -> None:
    """Both get the task's id and its trace context; the record says who opened it, and keeps the goal as a digest."""
    async with httpx.AsyncClient() as client:
        for opener in ("ada@example.com", "host:runner"):
            answer = await client.post(
                f"{gateway.operators_url}/v1/tasks",
                json={"agents": ["agent:support"], "goal": "the secret goal", "workflow": "w", "incident": "INC-1"},
                headers=gateway.headers(opener),
            )
            assert answer.status_code == 201, answer.text
            opened = answer.json()
            assert opened["traceparent"].split("-")[1] == opened["trace_id"]
    records = [one for one in gateway.records() if one["kind"] == "task"]
    assert [one["subject"]["id"] for one in records] == ["ada@example.com", "host:runner"]
    assert [one["subject"]["type"] for one in records] == ["human", "service_account"]
    assert records[0]["task"]["goal_digest"].startswith("blake2b:")
    assert "secret goal" not in str(gateway.records())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"agents": []},
        {"agents": ["*"]},
        {"agents": ["agent:support"], "ttl_s": 0},
        {"agents": ["agent:support"], "unknown": 1},
        {"agents": ["agent:support"], "workflow": "with spaces and\nlines"},
    ],
)
async def test_a_bad_task_is_explained_to_those_who_may_open_one(gateway: Running, body: object) -> None:
    """A problem document names what is wrong; nothing is opened. A stranger is told of the credential instead."""
    async with httpx.AsyncClient() as client:
        url = f"{gateway.operators_url}/v1/tasks"
        known = await client.post(url, json=body, headers=gateway.headers("ada@example.com"))
        stranger = await client.post(url, json=body)
    assert known.status_code == 400
    assert known.headers["content-type"] == "application/problem+json"
    assert known.json()["title"]
    assert (stranger.status_code, stranger.json()["code"]) == (401, "agent.unauthenticated")
    assert [one for one in gateway.records() if one["kind"] == "task"] == []


async def test_an_agent_never_opens_a_task_whatever_its_roles(tmp_path: Path, billing: BillingServer) -> None:
    """Even where the operator names its role among the openers: an agent registers no goal."""
    identities = {
        "agents": [{"id": "agent:host", "roles": ["host"], "owner": "x@example.com"}],
        "issuers": [{"issuer": ISSUER, "audiences": ["whygate-test"], "jwks": f"file:{tmp_path / 'jwks.json'}"}],
        "task_openers": ["role:host"],
    }
    tools = {"billing": billing_tool(billing, tmp_path)}
    async with running(tmp_path, tools, identities=identities) as gateway, httpx.AsyncClient() as client:
        answer = await client.post(
            f"{gateway.operators_url}/v1/tasks", json={"agents": ["agent:host"]}, headers=gateway.headers("agent:host")
        )
    assert (answer.status_code, answer.json()["code"]) == (403, "policy.explicit_deny")


async def test_health_readiness_metrics_and_schema(gateway: Running) -> None:
    """What operators' tools ask for is there, and counts what happened."""
    async with httpx.AsyncClient() as client:
        await client.get(f"{gateway.url}/http/billing/invoices/1042", headers=gateway.headers())
        await client.get(f"{gateway.url}/http/billing/invoices/1042")
        health = await client.get(f"{gateway.operators_url}/healthz")
        ready = await client.get(f"{gateway.operators_url}/readyz")
        metrics = (await client.get(f"{gateway.operators_url}/metrics")).text
        schema = (await client.get(f"{gateway.operators_url}/schema/openapi.json")).json()
    assert health.json()["status"] == "ok"
    assert ready.json() == {"status": "ready"}
    assert (
        'whygate_decisions_total{code="role.permitted",outcome="permitted",tool="billing/invoice_get"} 1.0' in metrics
    )
    assert 'code="agent.unauthenticated",outcome="blocked"' in metrics
    assert {"/v1/tasks", "/healthz", "/readyz", "/metrics"} <= schema["paths"].keys()


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("", ""),
        ("/http/billing", "/http/billing"),
        ("/mcp/git", "/mcp/git"),
        ("/mcp/%2e%2e", ""),
        ("/mcp/" + "a" * 99, ""),
    ],
)
async def test_whoever_lacks_a_token_learns_who_issues_one(gateway: Running, path: str, resource: str) -> None:
    """Protected resource metadata, RFC 9728: for the gateway and for each address below it."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.url}/.well-known/oauth-protected-resource{path}")
    assert answer.json()["resource"] == gateway.gateway.config.public_url + resource
    assert answer.json()["authorization_servers"] == [ISSUER]


async def test_a_challenge_leads_to_the_metadata(gateway: Running) -> None:
    """The address in ``WWW-Authenticate`` answers."""
    async with httpx.AsyncClient() as client:
        refused = await client.get(f"{gateway.url}/http/billing/invoices/1042")
        challenge = refused.headers["www-authenticate"]
        url = challenge.split('resource_metadata="')[1].split('"')[0]
        assert (await client.get(url)).json()["authorization_servers"] == [ISSUER]
