"""The gatekeeper's way from a question to a durable decision, where things go wrong on it."""

import asyncio
import logging

import msgspec
import pytest
from tests.gatekeeping import AGENT, OTHER, RULES, World, call

from whygate.core.calls import Hints, Tool, ToolCall, TraceParent
from whygate.core.identity import ANONYMOUS, Status
from whygate.core.policy.errors import PolicyErrors
from whygate.core.reasons import Code
from whygate.flow.ports import Completion
from whygate.flow.tasks import IDLE_GAP_US, NewTask


async def test_a_decision_is_recorded_before_it_is_told() -> None:
    """What ``admit`` returns is in the ledger already, with its task before it."""
    world = await World().load()
    admission = await world.gate.admit(call())
    assert admission.allowed
    assert [record.id for record in world.ledger.of("decision")] == [admission.answer.id]
    assert [record.kind for record in world.ledger.records[-2:]] == ["task", "decision"]


async def test_without_a_policy_nothing_passes() -> None:
    """Before any set is in force, every call is refused as policy.invalid, recorded."""
    admission = await World().gate.admit(call())
    assert admission.decision.code is Code.POLICY_INVALID


async def test_a_set_with_an_error_leaves_the_last_good_one_in_force() -> None:
    """Loading is all or nothing, and the refused set is a record."""
    world = await World().load()
    before = world.policies.current
    with pytest.raises(PolicyErrors):
        await world.load({"broken.yaml": RULES.replace("billing/read", "")})
    assert world.policies.current is before
    assert [record.event for record in world.ledger.of("policy")] == ["in_force", "refused"]
    assert world.ledger.of("policy")[-1].errors
    assert (await world.gate.admit(call())).allowed


async def test_a_policy_that_changes_between_deciding_and_recording_decides_again() -> None:
    """The claim on the set in force fails in the commit; the second try rests on the new set."""
    world = await World().load()
    stale = world.policies.current
    await world.load({"support.yaml": RULES.replace("version: 1", "version: 2")})
    fresh = world.policies.current
    world.policies.current = stale
    plain = world.ledger.append
    tries = []

    async def append(*records: object, claims: tuple[object, ...] = ()) -> None:
        tries.append(claims)
        if len(tries) > 1:
            world.policies.current = fresh
        await plain(*records, claims=claims)  # type: ignore[arg-type]  # passed on as it came

    world.ledger.append = append  # type: ignore[method-assign]  # the moment between deciding and recording
    admission = await world.gate.admit(call())
    assert admission.allowed
    assert len(tries) == 3  # stale, stale (still being swapped), fresh
    assert fresh is not None
    assert [record.policy.digest for record in world.ledger.of("decision")] == [fresh.digest]


async def test_facts_that_never_hold_still_refuse() -> None:
    """A claim that fails again and again ends as context.incomplete, recorded once."""
    world = await World().load()
    stale = world.policies.current
    await world.load({"support.yaml": RULES.replace("version: 1", "version: 2")})
    world.policies.current = stale
    admission = await world.gate.admit(call())
    assert admission.decision.code is Code.CONTEXT_INCOMPLETE
    assert [record.reason.code for record in world.ledger.of("decision")] == [Code.CONTEXT_INCOMPLETE.value]


async def test_whatever_breaks_inside_is_a_recorded_refusal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours never lets a call through, never raises into an edge, and tells the caller nothing of it."""
    world = await World().load()
    monkeypatch.setattr(world.tasks, "join", lambda *_: 1 / 0)
    with caplog.at_level(logging.CRITICAL):
        admission = await world.gate.admit(call())
    assert admission.decision.code is Code.INTERNAL_ERROR
    assert "ZeroDivision" not in admission.answer.note
    assert [record.reason.code for record in world.ledger.of("decision")] == [Code.INTERNAL_ERROR.value]


async def test_a_call_is_completed_in_the_ledger_and_in_the_metrics() -> None:
    """Allowed calls get a completion; a refused one has none to get."""
    world = await World().load()
    allowed, refused = await world.gate.admit(call()), await world.gate.admit(call("write"))
    world.gate.complete(allowed, Completion(status=200, result_bytes=3, result_digest=world.gate.digest(b"abc")))
    world.gate.complete(refused, Completion())
    (completion,) = world.ledger.of("completion")
    assert (completion.decision, completion.status, completion.result.bytes) == (allowed.answer.id, 200, 3)
    assert [one.decision.code for one in world.seen.decisions] == [Code.ROLE_PERMITTED, Code.POLICY_NO_MATCH]


# --- tasks ---


async def test_calls_without_a_task_share_one_until_an_idle_gap() -> None:
    """The derived task of the design: by principal and session, ended by half an hour of silence."""
    world = await World().load()
    first = await world.gate.admit(call())
    world.wall_us += IDLE_GAP_US - 1
    second = await world.gate.admit(call())
    session = await world.gate.admit(call(hints=Hints(session="s1")))
    world.wall_us += IDLE_GAP_US
    third = await world.gate.admit(call())
    assert first.task_id == second.task_id
    assert len({first.task_id, session.task_id, third.task_id}) == 3
    assert [record.task.derived for record in world.ledger.of("task")] == [True, True, True]


async def test_a_task_is_only_for_those_it_names() -> None:
    """By id or by trace: whoever is not named joins nothing, and learns nothing."""
    world = await World().load()
    task = await world.tasks.open(NewTask(agents=("agent:support",)), AGENT)
    assert (await world.gate.admit(call(hints=Hints(task=task.id)))).task_id == task.id
    named = await world.gate.admit(call(principal=OTHER, hints=Hints(task=task.id)))
    unknown = await world.gate.admit(call(principal=OTHER, hints=Hints(task=task.id[:-1] + "0")))
    assert named.decision.code is unknown.decision.code is Code.TASK_NOT_USABLE
    assert named.answer.note == unknown.answer.note
    parent = TraceParent(trace_id=task.trace_id, span_id="ab" * 8)
    assert (await world.gate.admit(call(hints=Hints(parent=parent)))).task_id == task.id
    assert (await world.gate.admit(call(principal=OTHER, hints=Hints(parent=parent)))).task_id != task.id


async def test_a_task_that_has_ended_is_not_usable() -> None:
    """The end that was set counts, by the ledger's clock."""
    world = await World().load()
    task = await world.tasks.open(NewTask(agents=("agent:support",), ttl_s=60), AGENT)
    world.wall_us += 61 * 1_000_000
    admission = await world.gate.admit(call(hints=Hints(task=task.id)))
    assert admission.decision.code is Code.TASK_NOT_USABLE


async def test_a_foreign_trace_is_linked_never_joined() -> None:
    """A caller can't choose where its refusal shows up."""
    world = await World().load()
    foreign = TraceParent(trace_id="ab" * 16, span_id="cd" * 8)
    await world.gate.admit(call("write", hints=Hints(parent=foreign)))
    (record,) = world.ledger.of("decision")
    assert record.context.trace_id != foreign.trace_id
    assert (record.context.link.trace_id, record.context.link.span_id) == (foreign.trace_id, foreign.span_id)


async def test_whoever_proves_nothing_joins_no_task() -> None:
    """An unauthenticated call with a task's id is refused for what it is, outside the task and its trace."""
    world = await World().load()
    task = await world.tasks.open(NewTask(agents=("agent:support",)), AGENT)
    parent = TraceParent(trace_id=task.trace_id, span_id="ab" * 8)
    hints = Hints(task=task.id, parent=parent)
    admission = await world.gate.admit(call(principal=ANONYMOUS, hints=hints))
    (record,) = world.ledger.of("decision")
    assert admission.decision.code is Code.AGENT_UNAUTHENTICATED
    assert record.context.task == ""
    assert record.context.trace_id != task.trace_id


async def test_a_caller_that_left_before_its_task_was_opened_keeps_nobody_out() -> None:
    """The first call of a session is cancelled before anything of it is written: the next one gets a task that is open."""
    world = await World().load()
    append, begun = world.ledger.append, asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    world.ledger.append = never  # type: ignore[method-assign]  # the commit that its caller does not wait for
    first = asyncio.ensure_future(world.gate.admit(call()))
    await begun.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.ledger.append = append  # type: ignore[method-assign]  # as it was
    second = await world.gate.admit(call())
    assert second.allowed
    assert [record.task.id for record in world.ledger.of("task")] == [second.task_id]
    assert len(world.gate._in_flight._running[AGENT.id]) == 1


async def test_tasks_come_back_after_a_restart() -> None:
    """Open tasks are live state of the ledger: a new gateway knows them all."""
    world = await World().load()
    task = await world.tasks.open(NewTask(agents=("agent:support",), workflow="w", incident="i"), AGENT)
    derived = await world.gate.admit(call())
    world.ledger.close()
    again = World(type(world.ledger)(world.ledger.disk, wall=lambda: world.wall_us))
    await again.load()
    assert (await again.gate.admit(call(hints=Hints(task=task.id)))).task_id == task.id
    assert (await again.gate.admit(call())).task_id == derived.task_id


async def test_what_is_only_glanced_at_is_recorded_where_it_is_refused() -> None:
    """A ping of an active agent leaves no record, joins no task and takes no place; a suspended one's is refused like a call."""
    world = await World().load()
    ping = ToolCall(protocol="mcp", method="ping", server="billing", principal=AGENT, public=True)
    assert await world.gate.glance(ping) is None
    assert world.ledger.of("decision") == []
    assert world.tasks._by_id == {}
    suspended = msgspec.structs.replace(AGENT, status=Status.SUSPENDED)
    refused = await world.gate.glance(msgspec.structs.replace(ping, principal=suspended))
    assert refused is not None
    assert refused.decision.code is Code.AGENT_SUSPENDED
    assert refused.record in world.ledger.records
    stranger = await world.gate.glance(msgspec.structs.replace(ping, principal=ANONYMOUS))
    assert stranger is not None
    assert stranger.decision.code is Code.AGENT_UNAUTHENTICATED


async def test_answers_are_part_of_a_calls_digest() -> None:
    """The same arguments with and without an answer, and with another one, are three different calls."""
    world = await World().load()
    digests = set()
    for answers in ({}, {"sure": {"action": "accept"}}, {"sure": {"action": "decline"}}):
        admission = await world.gate.admit(msgspec.structs.replace(call(args={"a": 1}), answers=answers))
        assert admission.record is not None
        digests.add(admission.record.arguments.digest)
    assert len(digests) == 3


@pytest.mark.parametrize("known", [True, False])
async def test_a_refused_resource_is_named_as_what_was_asked_for(known: bool) -> None:
    """As with tools: what only a caller said is no id; either way the whole URI is there as a digest only."""
    world = await World().load()
    uri = "https://ada:pw@docs.example/a?key=s"
    thing = Tool(server="billing", name=uri, type="resource", known=known)
    admission = await world.gate.admit(
        msgspec.structs.replace(call(), method="resources/read", tool=thing, args={"uri": uri})
    )
    assert admission.record is not None
    resource = admission.record.resource
    shown = ("billing/https://docs.example/a", "") if known else ("", "https://docs.example/a")
    assert (resource.id, resource.asked, resource.type) == (*shown, "resource")
    assert resource.digest == world.gate.digest(uri.encode())
