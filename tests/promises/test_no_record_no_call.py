"""No record, no call: nothing goes upstream, and no answer goes to the agent, before its decision is durable."""

import logging
from pathlib import Path

import httpx
import pytest
from tests.gatekeeping import World, call
from tests.servers.gateway import billing_tool, running

from whygate.core.reasons import Code
from whygate.testing.billing import BillingServer
from whygate.testing.threads import serving


@pytest.mark.parametrize("written", [True, False], ids=["it was written", "it was not"])
@pytest.mark.parametrize("name", ["read", "write"], ids=["permitted", "refused"])
async def test_a_commit_that_reports_an_error_lets_nothing_pass(
    written: bool, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the record was written or not is unknown: the answer is audit.unavailable, for a refusal as well."""
    world = await World().load()
    world.ledger.fail_next(written=written)
    with caplog.at_level(logging.ERROR):
        admission = await world.gate.admit(call(name))
    assert admission.decision.code is Code.AUDIT_UNAVAILABLE
    assert not admission.allowed
    assert admission.record is None
    assert admission.answer.id == ""
    assert "audit.unavailable" in caplog.text
    with caplog.at_level(logging.CRITICAL):
        assert not (await world.gate.admit(call("read"))).allowed


async def test_without_its_ledger_a_gateway_forwards_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is deleted under a running gateway: calls stop with 503, readiness says so, the tool sees nothing."""
    with serving(BillingServer("the-gateways-own-secret")) as billing:
        async with (
            running(tmp_path, {"billing": billing_tool(billing, tmp_path)}) as gateway,
            httpx.AsyncClient(headers=gateway.headers()) as client,
        ):
            fine = await client.get(f"{gateway.url}/http/billing/invoices/1042")
            assert fine.status_code == 200
            gateway.ledger.unlink()
            with caplog.at_level(logging.CRITICAL):
                answer = await client.get(f"{gateway.url}/http/billing/invoices/1042")
                ready = await client.get(f"{gateway.operators_url}/readyz")
                await gateway.gateway.failed.wait()
            assert (answer.status_code, answer.json()["code"]) == (503, "audit.unavailable")
            assert answer.headers["retry-after"]
            assert ready.status_code == 503
        assert len(billing.seen) == 1
