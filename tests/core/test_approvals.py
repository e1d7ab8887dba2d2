"""An approval moves as the table says, and what is spent or over stays so."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whygate.core.approvals import (
    MOVES,
    Answerer,
    Approval,
    Asked,
    Change,
    Event,
    No,
    NotAMove,
    State,
    may_answer,
    moved,
)
from whygate.core.patterns import fits, narrower

ASKED = Asked(approvers=("group:leads",), policy="p", principal="a", rule="r", rule_digest="d", tool="s/t")
NOW = 1_000_000
ENDED = (State.DENIED, State.EXPIRED, State.CANCELLED, State.REVOKED)


def approval(state: State = State.PENDING, uses: int = 1) -> Approval:
    return Approval(
        answer_by_us=10 * NOW, asked=ASKED, asked_us=0, id="i", state=state, until_us=10 * NOW, uses_left=uses
    )


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_cell_of_the_table(state: State, event: Event) -> None:
    """What the table names is a move, and all else is none."""
    if event in MOVES[state]:
        assert moved(approval(state), event, NOW).state is MOVES[state][event]
    else:
        with pytest.raises(NotAMove):
            moved(approval(state), event, NOW)


@given(st.lists(st.tuples(st.sampled_from(Event), st.integers(0, 10**10), st.sampled_from("xyz"))))
def test_what_is_over_stays_over(events: list[tuple[Event, int, str]]) -> None:
    """No sequence of events gives more uses than were agreed, revives what ended, or permits without a person."""
    made, spent = approval(uses=0), 0
    for event, now, by in events:
        before = made
        try:
            made = moved(made, event, now, Change(by=by))
        except NotAMove:
            made = before
            continue
        spent += event is Event.USED
        assert before.state not in ENDED
        assert made.state is not State.APPROVED or made.votes
        assert len(set(made.votes)) == len(made.votes)
    assert spent <= ASKED.uses
    assert not (spent and made.usable(0))


def test_who_may_answer() -> None:
    """Not the caller, nor whoever it acts for; of the chain only the person at its end, where the rule names that one."""
    lead = Answerer(id="l", groups=("leads",))
    behind = msgspec.structs.replace(ASKED, behind=("helper", "person"), owner="o", excluded=("requester", "owner"))
    named = msgspec.structs.replace(behind, approvers=("on_behalf_of",))
    assert may_answer(behind, (), lead) is None
    assert may_answer(behind, ("l",), lead) is No.TWICE
    for who, asked, no in (
        ("a", named, No.SELF),
        ("helper", named, No.SELF),
        ("person", behind, No.SELF),
        ("person", named, None),
        ("o", behind, No.OWNER),
        ("x", named, No.NOT_NAMED),
    ):
        assert may_answer(asked, (), Answerer(id=who, groups=("leads",) if asked is behind else ())) is no


def test_values_are_equal_in_type_at_every_depth() -> None:
    """``1``, ``1.0`` and ``true`` are three; a pattern knows ``*`` and ``?`` and nothing else."""
    assert not fits({"x": [1]}, {"x": [True]})
    assert not fits({"x": 0.1}, {"x": 0.10000000000000002})
    assert not fits({"x": "a[bc]"}, {"x": "ab"})
    assert not narrower([1, 2], [True])
    assert not narrower({"x": 1}, {"x": 1.0})
    assert narrower([1, 2], [2])
