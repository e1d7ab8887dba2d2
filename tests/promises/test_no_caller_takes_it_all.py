"""Whoever is known has a quota: of calls in flight, of tasks; at its bound it is refused, and nobody else notices."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.gatekeeping import AGENT, OTHER, World, call
from tests.servers.gateway import Running, billing_tool, running

from whygate.core.calls import Hints
from whygate.core.reasons import Code
from whygate.flow import gatekeeper, quotas, repeats, tasks
from whygate.flow.ports import Completion
from whygate.flow.quotas import FORGOTTEN_NS, HOUR_US, MAX_IN_FLIGHT, InFlight, PerHour
from whygate.flow.repeats import FIRST
from whygate.flow.tasks import NewTask
from whygate.testing.billing import BillingServer


async def test_calls_in_flight_are_bounded_for_each_caller() -> None:
    """One call too many is quota.exceeded, recorded; others go on, and so does the caller when one of its calls ends."""
    world = await World().load()
    running = [await world.gate.admit(call()) for _ in range(MAX_IN_FLIGHT)]
    refused = await world.gate.admit(call())
    assert all(one.allowed for one in running)
    assert refused.decision.code is Code.QUOTA_EXCEEDED
    assert refused.record is not None
    assert refused.record.reason.code == "quota.exceeded"
    assert (await world.gate.admit(call(principal=OTHER))).allowed
    world.gate.complete(running[0], Completion(status=200))
    assert (await world.gate.admit(call())).allowed
    assert not (await world.gate.admit(call())).allowed


async def test_refused_calls_are_not_in_flight() -> None:
    """What does not go out takes no place, whoever refused it, and even where nothing could be recorded."""
    world = await World().load()
    for _ in range(2 * MAX_IN_FLIGHT):
        await world.gate.admit(call("write"))
    assert (await world.gate.admit(call())).allowed
    world.ledger.fail_next(written=False)
    for _ in range(2 * MAX_IN_FLIGHT):
        assert not (await world.gate.admit(call())).allowed
    assert len(world.gate._in_flight._running[AGENT.id]) == 1


async def test_a_stream_that_rests_takes_no_place() -> None:
    """An agent with hundreds of sessions, each with its stream of news, can still call; a call of that HTTP method can't hide
    behind it.
    """
    world = await World().load()
    stream = msgspec.structs.replace(call(), method="GET", public=True, tool=None)
    for _ in range(2 * MAX_IN_FLIGHT):
        assert (await world.gate.admit(stream)).allowed
    plain = msgspec.structs.replace(call(), method="GET", protocol="http")
    assert [(await world.gate.admit(plain)).allowed for _ in range(MAX_IN_FLIGHT + 1)].count(False) == 1


async def test_an_end_told_twice_frees_one_place() -> None:
    """A second completion of a call gives nothing back."""
    world = await World().load()
    running = [await world.gate.admit(call()) for _ in range(MAX_IN_FLIGHT)]
    for _ in range(2):
        world.gate.complete(running[0], Completion(status=200))
    assert (await world.gate.admit(call())).allowed
    assert not (await world.gate.admit(call())).allowed


def test_a_call_that_never_ends_keeps_nobody_out_for_ever() -> None:
    """After ten minutes a call without an end makes room for another one."""
    flights = InFlight()
    assert all(flights.begin("a", number) for number in range(MAX_IN_FLIGHT))
    assert flights.begin("a", FORGOTTEN_NS - 1) == 0
    assert flights.begin("a", FORGOTTEN_NS)
    assert flights.begin("a", FORGOTTEN_NS) == 0
    for ticket in range(2 * MAX_IN_FLIGHT):
        flights.end("a", ticket)
    assert flights._running == {}


def test_a_bucket_fills_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, then one at a time as the hour goes by; nobody's spending is anybody else's, and memory is bounded."""
    monkeypatch.setattr(quotas, "_OPENERS", 2)
    bucket = PerHour(4)
    assert [bucket.take("a", 0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert bucket.take("b", 0)
    assert [bucket.take("a", HOUR_US // 4) for _ in range(2)] == [True, False]
    assert not bucket.take("a", 0)  # a clock set back gives nothing
    assert [bucket.take("a", 10 * HOUR_US) for _ in range(5)] == [True] * 4 + [False]
    for who in "cd":
        bucket.take(who, 10 * HOUR_US)
    assert list(bucket._spent) == ["c", "d"]


async def test_open_tasks_of_one_opener_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended counts no more, also after a restart; derived tasks are no one's to open."""
    monkeypatch.setattr(tasks, "MAX_OPEN_TASKS", 3)
    world = await World().load()
    await world.gate.admit(call())
    for ttl_s in (60, 3600, 3600):
        assert world.tasks.may_open(AGENT) is None
        await world.tasks.open(NewTask(agents=(AGENT.id,), ttl_s=ttl_s), AGENT)
    again = World(type(world.ledger)(world.ledger.disk, wall=lambda: world.wall_us))
    for each in (world, again):
        fault = each.tasks.may_open(AGENT)
        assert fault is not None
        assert fault.code is Code.QUOTA_EXCEEDED
        assert each.tasks.may_open(OTHER) is None
    world.wall_us += 120 * 1_000_000
    assert world.tasks.may_open(AGENT) is None


async def test_a_session_for_each_call_is_not_a_task_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that invents sessions gets no ledger row and no task for each: beyond the bound they share one."""
    monkeypatch.setattr(tasks, "MAX_SESSIONS", 5)
    world = await World().load()
    for number in range(100):
        admission = await world.gate.admit(call(hints=Hints(session=f"s{number}")))
        world.gate.complete(admission, Completion(status=200))
    assert len(world.ledger.of("task")) == 6


# --- a running gateway ---


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(tasks, "TASKS_PER_HOUR", 2)
    async with running(tmp_path, {"billing": billing_tool(billing, tmp_path)}) as made:
        yield made


async def test_an_opener_at_its_bound_is_told_to_wait(gateway: Running) -> None:
    """429 with Retry-After, and a record; other openers open theirs."""
    async with httpx.AsyncClient() as client:
        url, body = f"{gateway.operators_url}/v1/tasks", {"agents": ["agent:support"]}
        answers = [await client.post(url, json=body, headers=gateway.headers("host:runner")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert answers[-1].headers["retry-after"]
    assert gateway.decision(answers[-1])["reason"]["code"] == "quota.exceeded"
    await gateway.open_task()


async def test_an_agent_at_its_bound_is_told_to_wait(
    gateway: Running, billing: BillingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain HTTP call too many is 429 with Retry-After, and never reaches the tool."""
    monkeypatch.setattr(InFlight, "begin", lambda *_: 0)
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.get(f"{gateway.url}/http/billing/invoices/1042")
    assert (answer.status_code, answer.json()["code"]) == (429, "quota.exceeded")
    assert answer.headers["retry-after"]
    assert gateway.decision(answer)["subject"]["id"] == "agent:support"
    assert billing.seen == []


# --- records ---


async def test_refusals_of_one_caller_do_not_fill_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its quota of refusals a caller's are counted, in place of their reasons; what it may do still goes through."""
    monkeypatch.setattr(gatekeeper, "REFUSED_PER_HOUR", 5)
    world = await World().load()
    answers = [await world.gate.admit(call("write")) for _ in range(1000)]
    assert [one.decision.code for one in answers] == [Code.POLICY_NO_MATCH] * 5 + [Code.QUOTA_EXCEEDED] * 995
    found = world.ledger.of("decision")
    assert len(found) == 5 + FIRST
    assert {one.answer.id for one in answers} == {record.id for record in found}
    assert (await world.gate.admit(call())).allowed
    assert (await world.gate.admit(call("write", principal=OTHER))).decision.code is not Code.QUOTA_EXCEEDED
    await world.gate.overdrawn.flush()
    counted = world.ledger.of("decision")[-1]
    assert counted.repeats is not None
    assert (counted.repeats.count, counted.repeats.of) == (995 - FIRST, found[-1].id)
    assert (counted.subject.id, counted.reason.code) == (AGENT.id, "quota.exceeded")
    assert len(world.seen.decisions) == 1002


async def test_calls_of_one_caller_do_not_fill_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its quota of calls none of a caller's goes through, and all together are a few records."""
    monkeypatch.setattr(gatekeeper, "RECORDED_PER_HOUR", 10)
    world = await World().load()
    answers = []
    for _ in range(100):
        answers.append(await world.gate.admit(call()))
        if answers[-1].allowed:
            world.gate.complete(answers[-1], Completion(status=200))
    assert [one.allowed for one in answers] == [True] * 10 + [False] * 90
    assert {one.decision.code for one in answers[10:]} == {Code.QUOTA_EXCEEDED}
    assert len(world.ledger.of("decision")) == 10 + FIRST
    assert (await world.gate.admit(call(principal=OTHER))).allowed


async def test_many_who_overdraw_share_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many callers go beyond their quotas at once: what counts for several of them names none."""
    monkeypatch.setattr(gatekeeper, "REFUSED_PER_HOUR", 0)
    monkeypatch.setattr(repeats, "MAX_SOURCES", 2)
    world = await World().load()
    for number in range(5):
        caller = msgspec.structs.replace(AGENT, id=f"agent:{number}")
        for _ in range(FIRST + 2):
            assert (await world.gate.admit(call("write", principal=caller))).decision.code is Code.QUOTA_EXCEEDED
    await world.gate.overdrawn.flush()
    counted = [record for record in world.ledger.of("decision") if record.repeats]
    assert [record.subject.id for record in counted] == ["agent:0", "agent:1", ""]
