"""What every ledger keeps, the fake included. What only a file can do wrong: ``test_sqlite_ledger.py``."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contracts import ledger_kit as kit
from tests.contracts.ledger_kit import SECOND, START_US, MemoryRig, Rig, SqliteRig

from whygate.core.records import LifeRecord
from whygate.flow.ports import ClaimFailed, LedgerUnavailable
from whygate.stores.sqlite import FOLLOW_S


@pytest.fixture(params=[SqliteRig, MemoryRig], ids=["sqlite", "fake"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made: Rig = request.param(tmp_path)
    made.open()
    yield made
    made.ledger.close()


async def lost(rig: Rig) -> None:
    """The ledger ends without an orderly stop, and what was open stays open."""
    rig.fail_next(written=False)
    with pytest.raises(LedgerUnavailable):
        await rig.ledger.append(kit.decision(allow=False))
    rig.ledger.close()


async def test_a_record_is_durable_when_append_returns(rig: Rig) -> None:
    """Whoever is told "written" finds it there, by other eyes than the writer's."""
    record = kit.decision()
    await rig.ledger.append(record)
    assert rig.records()[-1] == record


async def test_the_ledger_gives_number_time_and_writer(rig: Rig) -> None:
    """Numbers are dense from 1, and every record names the same writer."""
    for _ in range(5):
        await rig.ledger.append(kit.decision(), kit.decision(allow=False))
    found = rig.records()
    assert [record.seq for record in found] == list(range(1, 12))
    assert {record.writer for record in found} == {found[0].writer}
    assert found[0].writer
    assert {record.time for record in found} == {rig.ledger.now()}


async def test_records_of_one_append_lie_in_their_order(rig: Rig) -> None:
    """What was appended together lies together, as given."""
    group = [kit.opened(), kit.decision(task="t-1"), kit.decision(task="t-1", allow=False)]
    await rig.ledger.append(*group)
    assert [record.id for record in rig.records()[-3:]] == [record.id for record in group]


async def test_one_record_that_cannot_be_written_keeps_out_its_whole_append(rig: Rig) -> None:
    """All records of an append, or none; no number is skipped, and others are not held up."""
    bad = LifeRecord(data={"share": 0.5}, id=kit.new_id(), kind="config", v=1)
    with pytest.raises(LedgerUnavailable, match="floats"):
        await rig.ledger.append(kit.decision(), bad)
    after = kit.decision(allow=False)
    await rig.ledger.append(after)
    assert [record.seq for record in rig.records()] == [1, 2]
    assert rig.records()[-1].id == after.id


@pytest.mark.parametrize("data", [{"n": 2**53}, {"ключ": 1}, {"deep": [{"x": 1.5}]}, {"text": "\ud800"}])
async def test_what_other_json_libraries_would_read_differently_is_not_written(
    rig: Rig, data: dict[str, object]
) -> None:
    """Integers beyond 2^53-1, keys beyond ASCII, floats at any depth and lone surrogates never reach a record."""
    with pytest.raises(LedgerUnavailable):
        await rig.ledger.append(LifeRecord(data=data, id=kit.new_id(), kind="config", v=1))
    assert rig.kinds() == ["start"]
    assert rig.ledger.failed is None


async def test_a_record_too_large_for_an_entry_of_the_log_is_not_written(rig: Rig) -> None:
    """Whatever is in the ledger fits the formats it is proven in."""
    with pytest.raises(LedgerUnavailable, match="bytes"):
        await rig.ledger.append(LifeRecord(data={"x": "y" * 70_000}, id=kit.new_id(), kind="config", v=1))
    assert rig.kinds() == ["start"]


async def test_an_id_that_is_none_is_not_written(rig: Rig) -> None:
    """Records are found by UUID, so each has one."""
    with pytest.raises(LedgerUnavailable):
        await rig.ledger.append(LifeRecord(id="nonsense", kind="config", v=1))
    assert rig.kinds() == ["start"]


async def test_64_appends_at_once(rig: Rig) -> None:
    """Each of many concurrent appends lies there whole, and the numbers have no gap."""
    groups = [[kit.decision(agent=f"a-{n}"), kit.decision(agent=f"a-{n}", allow=False)] for n in range(64)]
    await asyncio.gather(*(rig.ledger.append(*group) for group in groups))
    found = rig.records()
    assert [record.seq for record in found] == list(range(1, 130))
    where = {record.id: record.seq for record in found}
    assert all(where[second.id] == where[first.id] + 1 for first, second in groups)


# --- claims ---


async def test_a_claim_on_the_policy_holds_only_for_the_set_in_force(rig: Rig) -> None:
    """A decision made under yesterday's policy is not written under today's."""
    await rig.ledger.append(kit.in_force("sha256:one"))
    await rig.ledger.append(kit.decision(), claims=(kit.policy_claim("sha256:one"),))
    await rig.ledger.append(kit.in_force("sha256:two"))
    with pytest.raises(ClaimFailed) as caught:
        await rig.ledger.append(kit.decision(), kit.decision(), claims=(kit.policy_claim("sha256:one"),))
    assert caught.value.claim == kit.policy_claim("sha256:one")
    await rig.ledger.append(kit.decision(), claims=(kit.policy_claim("sha256:two"),))
    assert rig.ledger.policy_in_force() == "sha256:two"
    assert [record.seq for record in rig.records()] == [1, 2, 3, 4, 5]


async def test_a_refused_policy_set_is_not_in_force(rig: Rig) -> None:
    """What could not be loaded changes nothing but the record of it."""
    await rig.ledger.append(kit.in_force("sha256:one"))
    refused = kit.in_force("sha256:two")
    refused.event = "refused"
    await rig.ledger.append(refused)
    assert rig.ledger.policy_in_force() == "sha256:one"


async def test_a_claim_on_a_task_holds_while_it_is_open(rig: Rig) -> None:
    """A call joins no task that was never opened, and none that is closed."""
    with pytest.raises(ClaimFailed):
        await rig.ledger.append(kit.decision(task="t-1"), claims=(kit.task_claim(),))
    await rig.ledger.append(kit.opened())
    await rig.ledger.append(kit.decision(task="t-1"), claims=(kit.task_claim(),))
    await rig.ledger.append(kit.closed())
    with pytest.raises(ClaimFailed):
        await rig.ledger.append(kit.decision(task="t-1"), claims=(kit.task_claim(),))


async def test_a_task_expires_by_the_time_that_never_runs_backwards(rig: Rig) -> None:
    """Setting the clock back does not bring an expired task back to life."""
    await rig.ledger.append(kit.opened(expires_us=START_US + 10 * SECOND))
    await rig.ledger.append(kit.decision(task="t-1"), claims=(kit.task_claim(),))
    rig.wall.us += 10 * SECOND
    await rig.ledger.append(kit.decision(allow=False))
    rig.wall.us -= 9 * SECOND
    with pytest.raises(ClaimFailed):
        await rig.ledger.append(kit.decision(task="t-1"), claims=(kit.task_claim(),))
    assert rig.ledger.tasks() == []


async def test_claims_see_what_was_written_just_before_them(rig: Rig) -> None:
    """Of appends that arrive together, a later one's claims are held against the earlier ones."""
    await rig.ledger.append(kit.opened())
    results = await asyncio.gather(
        rig.ledger.append(kit.decision(task="t-1"), claims=(kit.task_claim(),)),
        rig.ledger.append(kit.closed()),
        rig.ledger.append(kit.decision(task="t-1"), claims=(kit.task_claim(),)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), type(None), ClaimFailed]
    assert rig.kinds() == ["start", "task", "decision", "task"]


async def test_a_claim_of_an_unknown_kind_does_not_hold(rig: Rig) -> None:
    """What can't be checked can't be claimed."""
    claim = kit.policy_claim("x")
    claim = type(claim)(key="", kind="approval", value="x")
    with pytest.raises(ClaimFailed):
        await rig.ledger.append(kit.decision(), claims=(claim,))


# --- completions ---


async def test_a_completion_follows_within_its_time(rig: Rig) -> None:
    """An idle ledger writes a completion by itself, without an append to ride with."""
    call = kit.decision()
    await rig.ledger.append(call)
    rig.ledger.follow(kit.completion(call))
    async with asyncio.timeout(100 * FOLLOW_S):
        while rig.kinds() != ["start", "decision", "completion"]:  # noqa: ASYNC110  a file has no event to wait for
            await asyncio.sleep(0)


async def test_a_completion_rides_with_the_next_commit(rig: Rig) -> None:
    """An append takes along what ended before it."""
    call = kit.decision()
    await rig.ledger.append(call)
    rig.ledger.follow(kit.completion(call))
    await rig.ledger.append(kit.decision(allow=False))
    assert rig.kinds() == ["start", "decision", "completion", "decision"]


async def test_a_call_ends_once(rig: Rig) -> None:
    """A second completion of one call, or one of a call that was never allowed, is dropped and counted."""
    call, refused = kit.decision(), kit.decision(allow=False)
    await rig.ledger.append(call, refused)
    for ended in (call, call, refused):
        rig.ledger.follow(kit.completion(ended))
    await rig.ledger.append(kit.decision(allow=False))
    assert rig.kinds().count("completion") == 1
    assert rig.ledger.dropped == 2


# --- start and stop ---


async def test_start_and_stop_are_records(rig: Rig) -> None:
    """When a gateway ran is in the ledger, with what its caller says about it."""
    rig.ledger.close()
    rig.open()
    found = rig.records()
    assert [record.kind for record in found] == ["start", "stop", "start"]
    assert isinstance(found[0], LifeRecord)
    assert found[0].data == {"version": "test"}


async def test_a_restart_goes_on_where_the_last_run_ended(rig: Rig) -> None:
    """Numbers, writer, time, policy and tasks are those of before."""
    await rig.ledger.append(kit.in_force("sha256:one"), kit.opened(), kit.opened("t-2"), kit.decision(task="t-1"))
    await rig.ledger.append(kit.closed("t-2"))
    before = rig.ledger.tasks()
    rig.ledger.close()
    rig.wall.us -= SECOND // 2
    rig.open()
    assert rig.ledger.policy_in_force() == "sha256:one"
    assert rig.ledger.tasks() == before
    assert [task.id for task in before] == ["t-1"]
    await rig.ledger.append(kit.decision(task="t-1"), claims=(kit.task_claim(),))
    found = rig.records()
    assert [record.seq for record in found] == list(range(1, len(found) + 1))
    assert len({record.writer for record in found}) == 1
    assert [record.time for record in found] == sorted(record.time for record in found)


async def test_close_writes_what_waits(rig: Rig) -> None:
    """An orderly end loses no completion; after it nothing is written."""
    call = kit.decision()
    await rig.ledger.append(call)
    rig.ledger.follow(kit.completion(call))
    rig.ledger.close()
    assert rig.kinds() == ["start", "decision", "completion", "stop"]
    with pytest.raises(LedgerUnavailable, match="closed"):
        await rig.ledger.append(kit.decision())
    rig.ledger.close()


async def test_calls_without_an_end_become_unknown_exactly_once(rig: Rig) -> None:
    """After a crash each allowed call that had not ended is ended as ``outcome.unknown``, right after the start."""
    open_calls = [kit.decision(), kit.decision()]
    ended = kit.decision()
    external = kit.decision()
    external.enforcement = "external"
    await rig.ledger.append(open_calls[0], ended, kit.decision(allow=False), external, open_calls[1])
    rig.ledger.follow(kit.completion(ended))
    await rig.ledger.append(kit.decision(allow=False))
    for _ in range(2):
        await lost(rig)
        rig.open()
    found = rig.records()
    unknown = [record for record in found if record.kind == "completion" and record.code == "outcome.unknown"]
    assert [record.decision for record in unknown] == [call.id for call in open_calls]
    first_start = next(record.seq for record in found[1:] if record.kind == "start")
    assert [record.seq for record in unknown] == [first_start + 1, first_start + 2]


async def test_the_text_of_a_policy_is_durable_with_the_next_append(rig: Rig) -> None:
    """When a set is in force, its text is in the ledger."""
    rig.ledger.put_policy("sha256:one", {"a.yaml": "policy: a", "b.yaml": "policy: b"})
    await rig.ledger.append(kit.in_force("sha256:one"))
    assert rig.policy_texts("sha256:one") == {"a.yaml": "policy: a", "b.yaml": "policy: b"}


async def test_the_text_under_a_digest_is_never_replaced(rig: Rig) -> None:
    """What was in force stays readable as it was."""
    for text in ("policy: a", "policy: another"):
        rig.ledger.put_policy("sha256:one", {"a.yaml": text})
        await rig.ledger.append(kit.in_force("sha256:one"))
    assert rig.policy_texts("sha256:one") == {"a.yaml": "policy: a"}


# --- time ---


async def test_time_never_runs_backwards(rig: Rig) -> None:
    """Set back, the clock stands still until the wall clock has caught up; a large step is a record, once."""
    await rig.ledger.append(kit.decision(allow=False))
    rig.wall.us -= 3600 * SECOND
    await rig.ledger.append(kit.decision(allow=False))
    rig.wall.us += SECOND
    await rig.ledger.append(kit.decision(allow=False))
    found = rig.records()
    assert len({record.time for record in found}) == 1
    assert [record.kind for record in found] == ["start", "decision", "clock_step", "decision", "decision"]
    assert found[2].data["back_us"] == 3600 * SECOND
    before = rig.ledger.now()
    rig.wall.us -= 7200 * SECOND
    assert rig.ledger.now() >= before


async def test_a_small_correction_of_the_clock_is_no_event(rig: Rig) -> None:
    """Time daemons correct clocks all day."""
    rig.wall.us -= SECOND
    await rig.ledger.append(kit.decision(allow=False))
    assert rig.kinds() == ["start", "decision"]


# --- tasks ---


async def test_a_decision_keeps_its_task_alive(rig: Rig) -> None:
    """A task's last use is that of the last decision that joined it; knocking by strangers does not count."""
    await rig.ledger.append(kit.opened())
    rig.wall.us += SECOND
    await rig.ledger.append(kit.decision(task="t-1", allow=False))
    rig.wall.us += SECOND
    await rig.ledger.append(kit.decision(task="t-1", allow=False, code="task.not_usable"))
    task = rig.ledger.tasks()[0]
    assert (task.opened_us, task.last_us) == (START_US, START_US + SECOND)
    assert (task.agents, task.trace_id, task.workflow, task.opened_by) == (
        ("agent-1", "role:x"),
        kit.TRACE,
        "w",
        "agent-1",
    )


async def test_a_task_is_opened_once(rig: Rig) -> None:
    """A second opening does not hand a task to others."""
    await rig.ledger.append(kit.opened())
    again = kit.opened(trace="cd" * 16)
    await rig.ledger.append(again)
    assert [task.trace_id for task in rig.ledger.tasks()] == [kit.TRACE]


async def test_tasks_are_copies(rig: Rig) -> None:
    """What a caller does with a task changes nothing in the ledger."""
    await rig.ledger.append(kit.opened())
    rig.ledger.tasks()[0].closed = True
    assert rig.ledger.tasks()[0].closed is False


# --- failure ---


@pytest.mark.parametrize("written", [True, False])
async def test_a_failed_commit_is_unknown_and_the_end(rig: Rig, written: bool) -> None:
    """Whichever way it failed: this append and all after it are refused, and only the next start knows what was written."""
    call = kit.decision()
    rig.fail_next(written=written)
    with pytest.raises(LedgerUnavailable):
        await rig.ledger.append(call)
    assert rig.ledger.failed
    with pytest.raises(LedgerUnavailable):
        await rig.ledger.append(kit.decision())
    rig.ledger.follow(kit.completion(call))
    rig.ledger.close()
    rig.open()
    found = rig.records()
    assert (call.id in {record.id for record in found}) is written
    ends = [record.code for record in found if record.kind == "completion"]
    assert ends == (["outcome.unknown"] if written else [])
    assert [record.seq for record in found] == list(range(1, len(found) + 1))
    await rig.ledger.append(kit.decision())


async def test_everyone_who_waits_hears_of_the_failure(rig: Rig) -> None:
    """No caller hangs on a ledger that failed."""
    rig.fail_next(written=False)
    results = await asyncio.gather(*(rig.ledger.append(kit.decision()) for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {LedgerUnavailable}
