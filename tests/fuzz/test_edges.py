"""Both edges against thousands of inputs in each run of the tests; ``make soak`` throws a million."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.checks import check
from tests.fuzz.inputs import Input, one
from tests.fuzz.setting import HOST, KEY
from tests.fuzz.world import Ran, World

from whygate.http import edge as http_edge
from whygate.http import routes
from whygate.mcp import edge as mcp_edge
from whygate.mcp import envelope, passing, relay
from whygate.mcp.edge import McpEdge
from whygate.mcp.handles import Handles
from whygate.mcp.questions import Questions
from whygate.transport import headers as crossing

INPUTS = 4_000


class Fuzzing:
    """A world, and the loop that it lives in."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self.world = self._runner.run(World.make(folder))

    def run(self, given: Input) -> Ran:
        return self._runner.run(self.world.run(given))

    def throw(self, given: Input) -> str:
        """The outcome, or ``AssertionError``."""
        return check(self.world, self.run(given))

    def throw_all(self, count: int) -> set[str]:
        """The same ones each time; the outcomes there were."""
        return {self.throw(one(Random(f"fixed/{number}"), self.world.known)) for number in range(count)}

    def close(self) -> None:
        self._runner.run(self.world.close())
        self._runner.close()


@pytest.fixture
def fuzzing(tmp_path: Path) -> Iterator[Fuzzing]:
    made = Fuzzing(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_whatever_comes_is_answered_explained_recorded_and_never_passed_on_as_something_else(fuzzing: Fuzzing) -> None:
    """Thousands of bent requests: nothing unforeseen, no answer without a reason, no call without its durable decision,
    and no tool that reads another call than was decided. The same ones in each run.
    """
    outcomes = fuzzing.throw_all(INPUTS)
    # The inputs get far enough to mean something.
    assert {"permitted role.permitted", "permitted policy.public_tool", "passed"} <= outcomes
    assert len(outcomes) > 20


def test_the_same_with_what_hypothesis_likes_to_try(fuzzing: Fuzzing) -> None:
    """Its choices in place of a seed's: what it finds, it shrinks."""

    @settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(chance=st.randoms(use_true_random=False))
    def throw(chance: Random) -> None:
        fuzzing.throw(one(chance, fuzzing.world.known))

    throw()


def _request(method: str = "GET", target: bytes = b"/http/billing/invoices/1042", **changed: Any) -> Input:
    heads = [(b"authorization", f"Bearer {KEY}".encode()), (b"host", HOST.encode()), *changed.pop("headers", [])]
    made = Input(method, target, b"", heads, b"", pieces=1, leaves=False, upstream=500)
    return made._replace(**changed)


@pytest.mark.parametrize(
    ("given_input", "outcome"),
    [
        (_request(headers=[(b"content-length", "\u00b2".encode("latin-1"))]), "permitted role.permitted"),
        (_request(headers=[(b"content-length", b"9" * 5000)]), "permitted role.permitted"),
        (_request(query=b"a=#b"), "blocked request.malformed"),
        (_request(target=b"/http/billing/inv%6fices/1042"), "blocked request.path_ambiguous"),
        (_request(target=b"/http/billing/customers/e%78port"), "blocked request.path_ambiguous"),
        (_request(target=b"/http/billing/invoices/10%2D42"), "permitted role.permitted"),
        (_request(target=b"/http/billing/invoices/1042#x"), "blocked request.path_ambiguous"),
        (
            _request(
                "POST",
                b"/mcp/piped",
                body=b'{"jsonrpc":"2.0","method":"initialize","params":{}}',
                headers=[(b"content-type", b"application/json")],
            ),
            "blocked request.malformed",
        ),
    ],
)
def test_what_was_found_once_stays_mended(fuzzing: Fuzzing, given_input: Input, outcome: str) -> None:
    """Each of these was answered wrongly, or not at all, when the fuzzer first tried it."""
    assert fuzzing.throw(given_input) == outcome


def _lenient_json(patch: pytest.MonkeyPatch, _: World) -> None:
    patch.setattr(envelope, "loads", lambda body, **_: json.loads(body))


def _leaking_headers(patch: pytest.MonkeyPatch, _: World) -> None:
    strict = crossing._crossing
    patch.setattr(crossing, "_crossing", lambda name: "cookie" if name == b"cookie" else strict(name))


def _no_records(patch: pytest.MonkeyPatch, world: World) -> None:
    patch.setattr(world.ledger, "append", _nothing)


def _undecided_calls(patch: pytest.MonkeyPatch, _: World) -> None:
    patch.setattr(McpEdge, "_decide", lambda edge, turn, _: McpEdge._pass(edge, turn))


def _unread_questions(patch: pytest.MonkeyPatch, _: World) -> None:
    async def yes(*_: object) -> bool:
        return True

    patch.setattr(Questions, "message_may_pass", yes)


def _unread_results(patch: pytest.MonkeyPatch, _: World) -> None:
    patch.setattr(relay, "questions", lambda _: ())


def _any_handle(patch: pytest.MonkeyPatch, _: World) -> None:
    patch.setattr(Handles, "usable", lambda *_: True)


def _undecided_light_ones(patch: pytest.MonkeyPatch, world: World) -> None:
    patch.setattr(mcp_edge, "is_light", lambda envelope: not envelope.method.startswith("tools/"))
    patch.setattr(passing, "is_light", lambda envelope: not envelope.method.startswith("tools/"))


def _loose_paths(patch: pytest.MonkeyPatch, _: World) -> None:
    patch.setattr(routes, "_needless", lambda *_: False)


def _loose_names(patch: pytest.MonkeyPatch, _: World) -> None:
    patch.setattr(routes, "_folded", str)


async def _nothing(*records: object, claims: object = ()) -> None:
    """A ledger that says yes and writes nothing."""


@pytest.mark.parametrize(
    ("sabotage", "told"),
    [
        (_lenient_json, "as read by|unforeseen"),
        (_leaking_headers, "went up|agent's"),
        (_no_records, "not recorded|never completed"),
        (_undecided_calls, "went up undecided"),
        (_undecided_light_ones, "without a decision|went up undecided"),
        (_unread_questions, "a question that nobody decided|no rule permits"),
        (_unread_results, "a question that nobody decided|no rule permits"),
        (_any_handle, "given to nobody"),
        (_loose_paths, "another operation"),
        (_loose_names, "other arguments|one argument twice"),
    ],
)
def test_a_gateway_that_is_broken_is_found_out(
    fuzzing: Fuzzing, monkeypatch: pytest.MonkeyPatch, sabotage: Callable[[pytest.MonkeyPatch, World], None], told: str
) -> None:
    """The fuzzer finds each of these within its run: it is no fuzzer that sees nothing."""
    sabotage(monkeypatch, fuzzing.world)
    with pytest.raises(AssertionError, match=told):
        fuzzing.throw_all(3 * INPUTS)


@pytest.mark.parametrize(
    "given_input",
    [_request(), _request("POST", b"/mcp/up", body=b"{}", headers=[(b"content-type", b"application/json")])],
    ids=["http", "mcp"],
)
def test_what_nobody_foresaw_is_a_recorded_refusal(
    fuzzing: Fuzzing, monkeypatch: pytest.MonkeyPatch, given_input: Input
) -> None:
    """Over both edges: a bare 500 with its reason and its record, a line in the log, and nothing at the tool."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("with a secret in it")

    monkeypatch.setattr(http_edge, "second_reading", broken)
    monkeypatch.setattr(mcp_edge, "second_reading", broken)
    ran = fuzzing.run(given_input)
    assert (ran.status, ran.headers["whygate-reason"]) == (500, "internal.error")
    assert b"secret" not in ran.body
    assert ran.sent == []
    assert [record["reason"]["code"] for leaf in ran.leaves if "reason" in (record := json.loads(leaf))] == [
        "internal.error"
    ]
    assert "unforeseen" in ran.logged[0]
