"""Tasks against agents that invent sessions, traces and ids, and the catalogue against a server that invents tools."""

import json

import msgspec
import pytest
from tests.gatekeeping import AGENT, OTHER, World, call, tool

from whygate.core.calls import Hints, TraceParent
from whygate.core.reasons import Code
from whygate.flow import tasks
from whygate.flow.catalogue import MAX_NEW, Catalogue, Change, Listed
from whygate.flow.tasks import NewTask


async def test_a_new_session_with_every_call_is_not_a_task_with_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's name is the caller's word: beyond a bound all further ones share a task, and nobody else is touched."""
    monkeypatch.setattr(tasks, "MAX_SESSIONS", 10)
    world = await World().load()
    other = (await world.gate.admit(call(principal=OTHER, hints=Hints(session="mine")))).task_id
    seen = [(await world.gate.admit(call(hints=Hints(session=f"s{number}")))).task_id for number in range(50)]
    assert len(set(seen)) == 11
    assert len(set(seen[10:])) == 1
    assert len([record for record in world.ledger.records if record.kind == "task"]) == 12
    again = [(await world.gate.admit(call(hints=Hints(session=f"s{number}")))).task_id for number in range(10)]
    assert again == seen[:10]
    assert (await world.gate.admit(call(principal=OTHER, hints=Hints(session="mine")))).task_id == other
    world.wall_us += tasks.DERIVED_MAX_US
    assert (await world.gate.admit(call(hints=Hints(session="tomorrow")))).task_id not in seen


async def test_sessions_of_the_same_name_are_two_principals_two_tasks() -> None:
    """Naming another's session joins nothing of it."""
    world = await World().load()
    mine = await world.gate.admit(call(hints=Hints(session="s")))
    other = await world.gate.admit(call(principal=OTHER, hints=Hints(session="s")))
    assert mine.task_id != other.task_id
    guessed = await world.gate.admit(call(principal=OTHER, hints=Hints(task=mine.task_id)))
    invented = await world.gate.admit(call(principal=OTHER, hints=Hints(task="0" * 36)))
    assert guessed.decision.code is Code.TASK_NOT_USABLE
    assert (guessed.decision.code, guessed.decision.user) == (invented.decision.code, invented.decision.user)
    assert guessed.task_id != mine.task_id


async def test_a_trace_that_is_anothers_task_is_not_adopted() -> None:
    """Even who may choose a trace can't take that of another's task, whose calls would then no longer find it."""
    world = await World().load()
    task = await world.tasks.open(NewTask(agents=(AGENT.id,)), AGENT)
    parent = TraceParent(trace_id=task.trace_id, span_id="ab" * 8)
    trusted = msgspec.structs.replace(OTHER, adopt_trace=True)
    taker = await world.gate.admit(call(principal=trusted, hints=Hints(parent=parent)))
    assert taker.record is not None
    assert taker.record.context.trace_id != task.trace_id
    assert (await world.gate.admit(call(hints=Hints(parent=parent)))).task_id == task.id
    own = TraceParent(trace_id="cd" * 16, span_id="ab" * 8)
    adopted = await world.gate.admit(call(principal=trusted, hints=Hints(parent=own, session="second")))
    assert adopted.record is not None
    assert adopted.record.context.trace_id == own.trace_id


def test_a_server_that_lists_tools_without_end_leaves_the_others_theirs() -> None:
    """What one server lists counts against its own bound, and is told of no more often."""
    catalogue = Catalogue({name: Listed(make=tool, names=(), pinned=True) for name in ("bad", "good")})
    told: list[Change] = []
    catalogue.tell = lambda changes, _: told.extend(changes)
    for _ in range(2):
        catalogue.listed("bad", [json.dumps({"name": f"tool{number}"}).encode() for number in range(3 * MAX_NEW)])
    catalogue.listed("good", [b'{"name": "fine"}'])
    assert len(catalogue.new()) == len(told) == MAX_NEW + 1
    assert "good/fine" in catalogue.new()
