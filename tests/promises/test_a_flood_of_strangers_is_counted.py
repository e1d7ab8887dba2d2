"""Whoever proves nothing can't fill the disk, wear it out or hide: repeats are counted, and every one is in a count."""

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.gatekeeping import World, call
from tests.servers.gateway import billing_tool, running
from typer.testing import CliRunner

from whygate.cli import main
from whygate.core.calls import Fault, ToolCall
from whygate.core.identity import ANONYMOUS
from whygate.core.reasons import Code
from whygate.core.records import DecisionRecord
from whygate.flow import repeats
from whygate.flow.ports import Admission
from whygate.flow.repeats import FIRST, MAX_SOURCES, source_of
from whygate.telemetry import names
from whygate.telemetry.spans import Instance, of_decision
from whygate.testing.billing import BillingServer
from whygate.testing.ledger import MemoryLedger


def stranger(client: str = "192.0.2.1", code: Code = Code.AGENT_UNAUTHENTICATED) -> ToolCall:
    return call(principal=ANONYMOUS, client=client, faults=(Fault(code=code),))


async def refuse(world: World, count: int, client: str = "192.0.2.1", **more: Code) -> list[Admission]:
    return [await world.gate.admit(stranger(client, **more)) for _ in range(count)]


def decisions(world: World) -> list[DecisionRecord]:
    return world.ledger.of("decision")


async def test_the_first_are_recorded_and_the_rest_counted() -> None:
    """Ten thousand refusals of one source are three records and a count, and each was answered with a durable record."""
    world = await World().load()
    answers = await refuse(world, 10_000)
    first = decisions(world)
    assert len(first) == FIRST
    assert {one.answer.id for one in answers[FIRST:]} == {first[-1].id}
    assert {one.decision.code for one in answers} == {Code.AGENT_UNAUTHENTICATED}
    began = world.ledger.now()
    world.wall_us += 5_000_000
    await refuse(world, 5)
    await world.gate.strangers.flush()
    (counted,) = decisions(world)[FIRST:]
    assert counted.repeats is not None
    assert (counted.repeats.count, counted.repeats.of) == (10_002, first[-1].id)
    assert (counted.repeats.since, counted.repeats.until) == (began, world.ledger.now())
    assert (counted.client.address, counted.reason.code) == ("192.0.2.1", "agent.unauthenticated")


async def test_metrics_count_every_refusal() -> None:
    """What the ledger has in one record, the counter of decisions has one by one."""
    world = await World().load()
    await refuse(world, 50)
    assert len(world.seen.decisions) == 50


async def test_a_flood_that_goes_on_is_one_record_a_window() -> None:
    """A source that keeps knocking gets no first ones again; one that was silent for a window does."""
    world = await World().load()
    for _ in range(5):
        await refuse(world, 100)
        await world.gate.strangers.flush()
    assert len(decisions(world)) == FIRST + 5
    assert sum(record.repeats.count for record in decisions(world) if record.repeats) == 500 - FIRST
    await world.gate.strangers.flush()
    await refuse(world, 1)
    assert len(decisions(world)) == FIRST + 6
    assert decisions(world)[-1].repeats is None


async def test_sources_and_codes_are_counted_apart() -> None:
    """One address that floods hides neither another one's refusals nor its own with another code."""
    world = await World().load()
    await refuse(world, 100)
    other = (await refuse(world, 1, "192.0.2.2"))[0]
    expired = (await refuse(world, 1, code=Code.AGENT_TOKEN_EXPIRED))[0]
    assert [record.id for record in decisions(world)[FIRST:]] == [other.answer.id, expired.answer.id]


@pytest.mark.parametrize(
    ("client", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_a_source_is_what_one_host_has(client: str, source: str) -> None:
    """A host has a /64 of IPv6 to itself: other addresses of it are no other source."""
    assert source_of(client) == source


async def test_many_sources_share_one_place() -> None:
    """From however many addresses: memory and records are bounded, and nothing is left out of the counts."""
    world = await World().load()
    many = 4 * MAX_SOURCES
    for number in range(many):
        await refuse(world, 4, f"10.0.{number // 256}.{number % 256}")
    await world.gate.strangers.flush()
    found = decisions(world)
    assert len(found) == (FIRST + 1) * (MAX_SOURCES + 1)
    assert sum(record.repeats.count if record.repeats else 1 for record in found) == 4 * many
    elsewhere = [record for record in found if record.repeats and not record.client.address]
    assert len(elsewhere) == 1
    await world.gate.strangers.flush()
    await refuse(world, 1, "203.0.113.1")
    assert decisions(world)[-1].client.address == "203.0.113.1"


async def test_whoever_is_known_is_recorded_one_by_one() -> None:
    """The exception is for strangers: a refusal of somebody verified has a record of its own, however often it comes."""
    world = await World().load()
    for _ in range(20):
        await world.gate.admit(call("write"))
    assert len(decisions(world)) == 20


class Waiting(MemoryLedger):
    """Appends wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()
        self.let.set()

    async def append(self, *records: object, **more: object) -> None:
        await self.let.wait()
        await super().append(*records, **more)  # type: ignore[arg-type]  # passed on as it came


async def test_nobody_is_answered_before_a_record_is_durable() -> None:
    """Of a hundred at once the counted ones wait for the first ones' commit, and all name what is in the ledger."""
    ledger = Waiting()
    world = await World(ledger).load()
    ledger.let.clear()
    waiting = [asyncio.ensure_future(world.gate.admit(stranger())) for _ in range(100)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    ledger.let.set()
    named = {admission.answer.id for admission in await asyncio.gather(*waiting)}
    assert named == {record.id for record in decisions(world)}


async def test_without_a_ledger_strangers_hear_so(caplog: pytest.LogCaptureFixture) -> None:
    """No record, no answer that names one: what could not be written is audit.unavailable for those who waited, too."""
    ledger = Waiting()
    world = await World(ledger).load()
    ledger.let.clear()
    ledger.fail_next(written=False)
    waiting = [asyncio.ensure_future(world.gate.admit(stranger())) for _ in range(10)]
    await asyncio.sleep(0)
    ledger.let.set()
    codes = {admission.decision.code for admission in await asyncio.gather(*waiting)}
    assert codes == {Code.AUDIT_UNAVAILABLE}
    assert "audit.unavailable" in caplog.text


async def test_counts_that_can_not_be_written_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """What a ledger that failed can't take stands in the log, and keeps nobody from stopping."""
    world = await World().load()
    await refuse(world, 10)
    world.ledger.fail_next(written=False)
    await world.gate.strangers.close()
    assert "1 counted records could not be written" in caplog.text


async def test_a_count_is_in_its_span() -> None:
    """Jaeger shows how many a refusal stands for, too."""
    world = await World().load()
    await refuse(world, 10)
    await world.gate.strangers.flush()
    spans = of_decision(decisions(world)[-1], Instance(writer="w"))
    assert spans[0].attributes[names.REPEATS] == 10 - FIRST


async def test_a_flood_through_a_running_gateway(
    tmp_path: Path, billing: BillingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop writes what was counted; `why` tells of it, asked about the answer's id or the count's; `tail` shows it."""
    monkeypatch.setattr(repeats, "WINDOW_S", 3600)
    tools = {"billing": billing_tool(billing, tmp_path)}
    async with running(tmp_path, tools) as gateway, httpx.AsyncClient() as client:
        answers = [await client.get(f"{gateway.url}/http/billing/invoices/1042") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {401}
    found = gateway.decisions()
    assert len(found) == FIRST + 1
    assert found[-1]["repeats"]["count"] == 20 - FIRST

    def run(*words: str) -> str:
        return " ".join(CliRunner().invoke(main.app, [*words, "--ledger", str(gateway.ledger)]).output.split())

    told = run("why", answers[-1].headers["whygate-decision"])
    assert f"{20 - FIRST} more from the same source followed" in told
    assert f"{20 - FIRST} refusals of this kind" in run("why", found[-1]["id"])
    assert f"{20 - FIRST} times" in run("tail", "--no-follow")


async def test_counts_are_written_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to ask: a window ends by itself."""
    monkeypatch.setattr(repeats, "WINDOW_S", 0)
    world = await World().load()
    await refuse(world, FIRST)
    monkeypatch.setattr(repeats, "WINDOW_S", 0.001)
    await refuse(world, 10)
    async with asyncio.timeout(10):
        while sum(record.repeats.count for record in decisions(world) if record.repeats) < 10:  # noqa: ASYNC110  a timer tells nobody
            await asyncio.sleep(0)
    await world.gate.strangers.close()
