"""Plain HTTP tools through a real gateway: what is forwarded, what is refused, and what crosses."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.servers.gateway import Running, billing_tool, running

from whygate.testing.billing import BillingServer


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    async with running(tmp_path, {"billing": billing_tool(billing, tmp_path)}) as made:
        yield made


async def test_a_permitted_call_reaches_the_tool_and_comes_back_with_its_decision(
    gateway: Running, billing: BillingServer
) -> None:
    """The agent changes a URL and nothing else; the answer is the tool's, with whygate's headers on it."""
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.get(f"{gateway.url}/http/billing/invoices/1042")
    assert answer.status_code == 200
    assert answer.json()["id"] == "1042"
    assert answer.headers["whygate-outcome"] == "permitted"
    record = gateway.decision(answer)
    assert record["determined_by"]["rule"] == "read-invoices"
    assert record["resource"]["id"] == "billing/invoice_get"
    assert record["subject"]["type"] == "ai_agent"
    assert [one["path"] for one in billing.seen] == ["/invoices/1042"]


async def test_the_body_is_forwarded_byte_for_byte(gateway: Running, billing: BillingServer) -> None:
    """What was evaluated is what the tool gets: odd spacing and all."""
    body = b'{ "amount_cents" :4500,\n\t"invoice_id":"1042" ,"note":"\\u00fc \xc3\xbc"}'
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.post(
            f"{gateway.url}/http/billing/refunds?trace=1", content=body, headers={"content-type": "application/json"}
        )
    assert answer.status_code == 201
    assert billing.seen[0]["body"] == body
    assert billing.seen[0]["path"] == "/refunds?trace=1"


async def test_credentials_never_cross(gateway: Running, billing: BillingServer) -> None:
    """The agent's credential and cookies stay with us, the tool gets ours, and neither side's headers leak over."""
    sent = gateway.headers() | {"cookie": "session=secret", "x-api-key": "secret", "whygate-task": "", "via": "me"}
    async with httpx.AsyncClient(headers=sent) as client:
        answer = await client.get(f"{gateway.url}/http/billing/invoices/1042")
    assert answer.status_code == 200
    got = billing.seen[0]["headers"]
    assert got["authorization"] == "Bearer the-gateways-own-secret"
    assert not {"cookie", "x-api-key", "via", "whygate-task"} & got.keys()
    assert sent["authorization"] not in str(got)


async def test_a_refusal_is_a_problem_document_and_never_reaches_the_tool(
    gateway: Running, billing: BillingServer
) -> None:
    """RFC 9457, with the code, what to do next, and the decision's id; nothing was sent to the tool."""
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.post(f"{gateway.url}/http/billing/refunds", json={"amount_cents": 9_000_000})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["outcome"], problem["next"]) == ("args.limit_exceeded", "blocked", "fix_call")
    assert problem["status"] == 403
    assert problem["instance"] == f"urn:uuid:{problem['id']}"
    assert "500000" not in answer.text  # the agent learns no threshold
    assert gateway.decision(answer)["reason"]["admin"].startswith("Nobody refunds more")
    assert billing.seen == []


async def test_a_challenge_says_that_a_person_is_needed(gateway: Running, billing: BillingServer) -> None:
    """Permitted only with a person's agreement, which the refusal says; the record names what is required."""
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.post(f"{gateway.url}/http/billing/refunds", json={"amount_cents": 250_000})
    assert (answer.status_code, answer.json()["code"]) == (403, "step_up.required")
    assert [need["kind"] for need in gateway.decision(answer)["requires"]] == ["human"]
    assert billing.seen == []


async def test_an_argument_that_comes_twice_is_refused(gateway: Running, billing: BillingServer) -> None:
    """Query and body can't each bring their own amount."""
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.post(
            f"{gateway.url}/http/billing/refunds?amount_cents=1", json={"amount_cents": 9_000_000}
        )
    assert (answer.status_code, answer.json()["code"]) == (400, "request.duplicate_key")
    assert billing.seen == []


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": "application/json", "content-encoding": "gzip"}, {}],
    ids=["plain text", "encoded", "no type"],
)
async def test_a_body_that_cant_be_read_is_not_forwarded(
    gateway: Running, billing: BillingServer, headers: dict[str, str]
) -> None:
    """What can't be decided on doesn't pass."""
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.post(f"{gateway.url}/http/billing/refunds", content=b"amount=1", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed")
    assert billing.seen == []


async def test_the_tool_gets_our_trace_context(gateway: Running, billing: BillingServer) -> None:
    """One trace for each task: the tool's parent is this call's CLIENT span, whatever the agent sent."""
    task = await gateway.open_task()
    headers = gateway.headers() | {"whygate-task": task["id"], "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.get(f"{gateway.url}/http/billing/invoices/1042")
    record = gateway.decision(answer)
    assert record["context"]["task"] == task["id"]
    assert record["context"]["trace_id"] == task["trace_id"]
    assert record["context"]["link"] == {"span_id": "cd" * 8, "trace_id": "ab" * 16}
    sent = billing.seen[0]["headers"]["traceparent"]
    assert sent.split("-")[1] == task["trace_id"]
    assert sent.split("-")[2] != record["context"]["span_id"]


async def test_a_tool_that_is_down_is_a_failed_completion_not_a_refusal(tmp_path: Path) -> None:
    """The call was allowed; what became of it stands in its completion."""
    server = BillingServer("x")
    tool = billing_tool(server, tmp_path)
    server.server_close()
    async with running(tmp_path, {"billing": tool}) as gateway:
        async with httpx.AsyncClient(headers=gateway.headers()) as client:
            answer = await client.get(f"{gateway.url}/http/billing/invoices/1042")
        assert (answer.status_code, answer.headers["whygate-outcome"]) == (502, "permitted")
        assert answer.headers["content-type"] == "application/problem+json"
    completion = [one for one in gateway.records() if one["kind"] == "completion"]
    assert [(one["code"], one["decision"]) for one in completion] == [
        ("upstream.failed", answer.headers["whygate-decision"])
    ]


async def test_every_allowed_call_is_completed(gateway: Running) -> None:
    """Status, size and a keyed digest of what came back are recorded, the result itself never."""
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        fine = await client.get(f"{gateway.url}/http/billing/invoices/1042")
        missing = await client.get(f"{gateway.url}/http/billing/invoices/9999")
    await gateway.gateway.stop()
    found = {one["decision"]: one for one in gateway.records() if one["kind"] == "completion"}
    first, second = (found[answer.headers["whygate-decision"]] for answer in (fine, missing))
    assert first["status"] == 200
    assert first["result"]["bytes"] == len(fine.content)
    assert first["result"]["digest"].startswith("blake2b:")
    assert (second["status"], second["is_error"], second["error"]) == (404, True, "404")
    assert "Ada Example" not in str(gateway.records())
