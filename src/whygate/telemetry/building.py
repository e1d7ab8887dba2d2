"""From the ledger's bytes to spans, batch by batch: joins completions to decisions, and writers to where they run.

What it knows after a batch is the caller's to keep (``keep``), once the spans are delivered: the same batch built again
gives the same spans.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from whygate.core.events import ApprovalRecord
from whygate.core.instants import to_us
from whygate.core.records import AnyRecord, CompletionRecord, DecisionRecord, LifeRecord, TaskRecord, decode_for_spans
from whygate.telemetry import spans
from whygate.telemetry.shapes import clean
from whygate.telemetry.spans import Instance, Span

PENDING: Final = 8192
"""Decisions kept until they complete, some 30 MB at the most. A forgotten one is read again from the ledger."""
WRITERS: Final = 64
"""Writers remembered. A ledger has one, or one for each gateway that shares it."""

_UNREADABLE: Final = (msgspec.MsgspecError, ValueError)


class Built(NamedTuple):
    """What one batch gives."""

    spans: list[Span]
    instances: dict[str, Instance]
    """By writer, as of the last record of the batch."""
    ended: list[str]
    """Decisions that completed in it."""
    unreadable: list[tuple[int, str]]
    """Numbers of records that no span could be made of, each with why."""
    oldest_us: int
    """Time of its first record; 0 where none could be read."""


class Builder:
    def __init__(self, lookup: Callable[[str], bytes | None], instances: Sequence[Instance]) -> None:
        """``lookup`` reads a decision's bytes by its id, for those that are no longer in memory."""
        self._lookup = lookup
        self._instances = {instance.writer: instance for instance in instances}
        self._pending: OrderedDict[str, DecisionRecord] = OrderedDict()

    def build(self, batch: Sequence[tuple[int, bytes]]) -> Built:
        built = Built([], dict(self._instances), [], [], 0)
        for seq, data in batch:
            try:
                record = decode_for_spans(data)
                if not built.oldest_us:
                    built = built._replace(oldest_us=to_us(record.time))
                built.spans.extend(self._spans(record, built))
            except LookupError:
                continue  # a kind that this version does not know has no spans in it
            except _UNREADABLE as error:
                built.unreadable.append((seq, f"{type(error).__name__}: {error}"))
        return built

    def keep(self, built: Built) -> None:
        """``built`` was delivered: go on from there."""
        self._instances = built.instances
        for decision in built.ended:
            self._pending.pop(decision, None)

    def _spans(self, record: AnyRecord, built: Built) -> list[Span]:
        """Raises ``Unspannable``."""
        match record:
            case DecisionRecord():
                if not spans.waits(record):
                    return spans.of_decision(record, _instance(record, built))
                self._pending[record.id] = record
                while len(self._pending) > PENDING:
                    self._pending.popitem(last=False)
            case CompletionRecord():
                decision = self._decision(record.decision)
                built.ended.append(decision.id)
                return spans.of_call(decision, record, _instance(decision, built))
            case ApprovalRecord():
                return spans.of_approval(record, _instance(record, built))
            case TaskRecord():
                return [spans.of_task(record, _instance(record, built))]
            case LifeRecord(kind="start"):
                built.instances.pop(record.writer, None)
                built.instances[record.writer] = spans.instance_of(record)
                while len(built.instances) > WRITERS:
                    built.instances.pop(next(iter(built.instances)))
        return []

    def _decision(self, decision_id: str) -> DecisionRecord:
        known = self._pending.get(decision_id)
        if known is not None:
            return known
        data = self._lookup(decision_id)
        found = None if data is None else decode_for_spans(data)
        if not isinstance(found, DecisionRecord):
            raise spans.Unspannable("its decision is not in the ledger")
        return found


def _instance(record: DecisionRecord | TaskRecord | ApprovalRecord, built: Built) -> Instance:
    return built.instances.get(record.writer) or Instance(clean(record.writer))
