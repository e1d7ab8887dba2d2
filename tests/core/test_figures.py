"""Figures about who answers, and how."""

import datetime

import msgspec

from whygate.core.approvals import Asked
from whygate.core.events import ApprovalRecord
from whygate.core.records import Subject
from whygate.flow.figures import figures

AT = datetime.datetime(2026, 11, 27, tzinfo=datetime.UTC)
AT_US = int(AT.timestamp()) * 1_000_000


def story(number: int, event: str, after_s: float, who: str = "ada", proof: str = "passkey") -> list[ApprovalRecord]:
    asked = Asked(approvers=("ada",), policy="p", principal="agent:a", rule="r", rule_digest="d")
    question = ApprovalRecord(
        approval=f"a{number}", asked=asked, event="asked", id=f"a{number}", kind="approval", time=AT, v=1
    )
    answer = ApprovalRecord(
        approval=f"a{number}",
        asked_us=AT_US,
        event=event,
        id=f"b{number}",
        kind="approval",
        proof=proof,
        subject=None if event == "expired" else Subject(id=who, proof=proof, type="human"),
        time=AT + datetime.timedelta(seconds=after_s),
        v=1,
    )
    return [question, answer]


def test_counts_and_medians() -> None:
    """Of people and of rules; silence is the rule's, and a client's process is nobody."""
    records = [*story(1, "approved", 10), *story(2, "denied", 30), *story(3, "expired", 600)]
    records += story(4, "approved", 1, "agent:a", "client")
    found = figures(reversed(records))
    (ada,), (rule,) = found.approvers, found.rules
    assert (ada.name, ada.answered, ada.approved, ada.denied, ada.median_s) == ("ada", 2, 1, 1, 20.0)
    assert (rule.name, rule.answered, rule.expired, rule.refused_share) == ("p/r", 2, 1, 0.5)


def test_whoever_reads_nothing_is_shown() -> None:
    """Agreeing to everything in two seconds; not once, not slowly, and not with a refusal among few."""
    fast = [record for number in range(5) for record in story(number, "approved", 1.5)]
    slow = [record for number in range(5, 10) for record in story(number, "approved", 40, "bob")]
    choosy = [record for number in range(10, 15) for record in story(number, "approved", 1, "eve")]
    choosy += story(15, "denied", 1, "eve")
    found = {each.name: each.hasty for each in figures([*fast, *slow, *choosy]).approvers}
    assert found == {"ada": True, "bob": False, "eve": False}
    assert not figures(fast[:8]).approvers[0].hasty
    assert msgspec.json.encode(figures([]))
