"""How people answer: for each approver and each rule, how much, how fast, how often with no. Against fatigue: whoever agrees to
everything in two seconds reads nothing.

Pure, over records; nobody's name leaves the page that shows it.
"""

import statistics
from collections.abc import Iterable
from typing import Final

import msgspec

from whygate.core.events import ApprovalRecord
from whygate.core.instants import to_us

HASTY_S: Final = 2.0
HASTY_ANSWERS: Final = 5
"""Fewer say nothing about anybody."""
HASTY_SHARE: Final = 0.95
_ANSWERS: Final = frozenset(("agreed", "approved", "denied"))


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One approver's, or one rule's."""

    name: str
    answered: int
    approved: int
    denied: int
    expired: int = 0
    """Of a rule: nobody answered in time."""
    median_s: float
    """From the question to the answer."""

    @property
    def refused_share(self) -> float:
        return self.denied / self.answered if self.answered else 0.0

    @property
    def hasty(self) -> bool:
        """Agrees to nearly everything, faster than anybody reads."""
        enough = self.answered >= HASTY_ANSWERS and self.approved >= HASTY_SHARE * self.answered
        return enough and self.median_s <= HASTY_S


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of a while."""

    approvers: tuple[Figure, ...]
    rules: tuple[Figure, ...]


def figures(records: Iterable[ApprovalRecord]) -> Figures:
    """The figures of these records, in any order. What a client's own process answered is nobody's answer."""
    every = list(records)
    rule_of = {each.approval: f"{each.asked.policy}/{each.asked.rule}" for each in every if each.asked is not None}
    people: dict[str, list[ApprovalRecord]] = {}
    rules: dict[str, list[ApprovalRecord]] = {}
    for each in every:
        rule = rule_of.get(each.approval, "")
        if each.event in _ANSWERS and each.subject is not None and each.proof != "client":
            people.setdefault(each.subject.id, []).append(each)
            if rule:
                rules.setdefault(rule, []).append(each)
        elif each.event == "expired" and each.asked_us and rule:
            rules.setdefault(rule, []).append(each)
    return Figures(
        approvers=tuple(_figure(name, found) for name, found in sorted(people.items())),
        rules=tuple(_figure(name, found) for name, found in sorted(rules.items())),
    )


def _figure(name: str, found: list[ApprovalRecord]) -> Figure:
    answered = [each for each in found if each.event in _ANSWERS]
    waits = [(to_us(each.time) - each.asked_us) / 1e6 for each in answered if each.asked_us]
    denied = sum(each.event == "denied" for each in answered)
    return Figure(
        name=name,
        answered=len(answered),
        approved=len(answered) - denied,
        denied=denied,
        expired=len(found) - len(answered),
        median_s=statistics.median(waits) if waits else 0.0,
    )
