"""Refusals that were counted instead of recorded one by one, told."""

import datetime
from collections.abc import Iterable

import msgspec

from whygate.core.records import DecisionRecord


class Repeated(msgspec.Struct, frozen=True, kw_only=True):
    """Refusals of one kind and source. ``whygate why --json`` prints it."""

    count: int
    since: datetime.datetime
    until: datetime.datetime
    of: str
    """The decision that was recorded by itself before them, and whose id they were answered with."""


def repeated(records: Iterable[DecisionRecord]) -> Repeated | None:
    """What ``records`` count together; ``None`` where each stands for one call."""
    found = [record.repeats for record in records if record.repeats is not None]
    if not found:
        return None
    return Repeated(
        count=sum(each.count for each in found),
        since=min(each.since for each in found),
        until=max(each.until for each in found),
        of=found[0].of,
    )
