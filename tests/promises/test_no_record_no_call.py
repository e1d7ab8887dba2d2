"""No record, no call: nothing goes upstream, and no answer goes to the agent, before its decision is durable."""

import asyncio
import logging
import threading
from pathlib import Path

import httpx
import pytest
from tests.gatekeeping import World, call
from tests.servers.gateway import billing_tool, running

from whygate.core.reasons import Code
from whygate.stores import faults, sqlite
from whygate.stores.disk import Disk
from whygate.stores.faults import Ballast
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


async def test_a_disk_that_hangs_lets_nothing_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that does not return: callers hear audit.unavailable in time, readiness says so, the tool sees nothing."""
    monkeypatch.setattr(faults, "HANG_S", 0.2)
    hangs, goes_on, end = threading.Event(), threading.Event(), Disk._end

    def held(disk: Disk) -> None:
        if hangs.is_set():
            goes_on.wait(20)
        end(disk)

    monkeypatch.setattr(Disk, "_end", held)
    with serving(BillingServer("the-gateways-own-secret")) as billing:
        async with (
            running(tmp_path, {"billing": billing_tool(billing, tmp_path)}) as gateway,
            httpx.AsyncClient(headers=gateway.headers()) as client,
        ):
            hangs.set()
            with caplog.at_level(logging.CRITICAL):
                answers = [await client.get(f"{gateway.url}/http/billing/invoices/1042") for _ in range(3)]
                ready = await client.get(f"{gateway.operators_url}/readyz")
                await gateway.gateway.failed.wait()
            goes_on.set()
            assert {(one.status_code, one.json()["code"]) for one in answers} == {(503, "audit.unavailable")}
            assert (ready.status_code, ready.json()["missing"]) == (503, "the ledger can't write")
        assert billing.seen == []


async def test_a_disk_that_is_nearly_full_lets_nothing_pass_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway stays up for its operators and says what is wrong; with room calls pass again, and a record tells."""
    monkeypatch.setattr(sqlite, "WATCH_S", 0.01)
    make = Ballast.make
    monkeypatch.setattr(Ballast, "make", lambda _: False)
    with serving(BillingServer("the-gateways-own-secret")) as billing, caplog.at_level(logging.CRITICAL):
        async with (
            running(tmp_path, {"billing": billing_tool(billing, tmp_path)}) as gateway,
            httpx.AsyncClient(headers=gateway.headers()) as client,
        ):
            refused = await client.get(f"{gateway.url}/http/billing/invoices/1042")
            ready = await client.get(f"{gateway.operators_url}/readyz")
            assert (refused.status_code, refused.json()["code"], billing.seen) == (503, "audit.unavailable", [])
            assert (ready.status_code, "nearly full" in ready.json()["missing"]) == (503, True)
            await gateway.open_task()
            monkeypatch.setattr(Ballast, "make", make)
            async with asyncio.timeout(10):
                while (await client.get(f"{gateway.operators_url}/readyz")).status_code != 200:
                    pass
            assert (await client.get(f"{gateway.url}/http/billing/invoices/1042")).status_code == 200
            gaps = [record["data"] for record in gateway.records() if record["kind"] == "gap"]
    assert [gap["unrecorded"] for gap in gaps] == [1]


async def test_refusals_without_a_record_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of calls that can't be recorded are one line a second, with their number."""
    world = await World().load()
    world.ledger.fail_next(written=False)
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            await world.gate.admit(call("read"))
    assert 1 <= len([line for line in caplog.messages if "audit.unavailable" in line]) < 5


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
