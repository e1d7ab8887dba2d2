"""The examples run as they are, against a real gateway and real tools."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.servers.gateway import Running, example_tools, make_repository, run_example, running

from whygate.testing.billing import BillingServer


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer, repository: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, example_tools(tmp_path, billing, repository)) as made:
        yield made


async def test_the_support_agent_works_through_one_task(gateway: Running, repository: Path) -> None:
    """MCP over stdio and plain HTTP in one task: a dozen decisions of every kind, in one trace."""
    task = await gateway.open_task("agent:support", workflow="refund-claim", incident="TICKET-1")
    code, output = await run_example(
        "support_agent.py",
        WHYGATE_URL=gateway.url,
        WHYGATE_TOKEN=gateway.tokens.make("ada@example.com", act={"sub": "agent:support"}),
        WHYGATE_TASK=task["id"],
        TRACEPARENT=task["traceparent"],
        DEMO_REPOSITORY=str(repository),
        DEMO_STALE_TOKEN=gateway.tokens.make("ada@example.com", act={"sub": "agent:support"}, exp=1),
    )
    assert code == 0, output
    decided = gateway.decisions()
    calls = [one for one in decided if one["action"]["name"] not in ("server/discover", "tools/list")]
    assert [(one["resource"].get("id", ""), one["reason"]["code"]) for one in calls] == [
        ("billing/invoice_get", "role.permitted"),
        ("time/get_current_time", "role.permitted"),
        ("git/git_log", "role.permitted"),
        ("billing/refund", "role.permitted"),
        ("billing/refund", "step_up.required"),
        ("billing/refund", "args.limit_exceeded"),
        ("billing/refund", "policy.eval_error"),
        ("git/git_create_branch", "role.permitted"),
        ("git/git_add", "role.permitted"),
        ("git/git_commit", "role.permitted"),
        ("git/git_reset", "policy.explicit_deny"),
        ("billing/customer_export", "jit.grant_required"),
        ("billing/invoice_get", "agent.token_expired"),
    ]
    known = decided[:-1]  # whoever can't prove who they are joins nobody's task
    assert {one["context"]["trace_id"] for one in known} == {task["trace_id"]}
    assert {one["context"]["workflow"] for one in known} == {"refund-claim"}
    assert known[0]["subject"]["on_behalf_of"] == [
        {"id": "ada@example.com", "issuer": known[0]["subject"]["issuer"], "type": "human"}
    ]
    assert "git_reset" in output.split("tools: ")[1].splitlines()[0]  # an emergency could permit it


async def test_the_http_agent_reads_refusals(gateway: Running) -> None:
    """A program finds in each refusal what it can do next."""
    code, output = await run_example(
        "http_agent.py", WHYGATE_URL=gateway.url, WHYGATE_TOKEN=gateway.tokens.make("agent:support")
    )
    assert code == 0, output
    assert "refund of 4500 cents: done" in output
    assert "refund of 250000 cents: waits for a person (step_up.required" in output
    assert "refund of 9000000 cents: the call itself is wrong" in output


async def test_a_delegate_stays_visible_and_gets_no_more_than_its_own(gateway: Running) -> None:
    """Two agents in one task: the second's records name the whole chain, and its own policy decides."""
    task = await gateway.open_task("agent:support", "agent:researcher")
    chain = {"sub": "agent:researcher", "act": {"sub": "agent:support"}}
    code, output = await run_example(
        "delegating_agents.py",
        WHYGATE_URL=gateway.url,
        WHYGATE_TASK=task["id"],
        WHYGATE_TOKEN=gateway.tokens.make("ada@example.com", act={"sub": "agent:support"}),
        DELEGATE_TOKEN=gateway.tokens.make("ada@example.com", act=chain),
    )
    assert code == 0, output
    calls = [one for one in gateway.decisions() if one["action"]["name"] == "tools/call"]
    assert [(one["subject"]["id"], one["reason"]["code"]) for one in calls] == [
        ("agent:support", "role.permitted"),
        ("agent:researcher", "role.permitted"),
        ("agent:researcher", "policy.no_match"),
    ]
    assert [actor["id"] for actor in calls[1]["subject"]["on_behalf_of"]] == ["agent:support", "ada@example.com"]
    assert {one["context"]["task"] for one in calls} == {task["id"]}
