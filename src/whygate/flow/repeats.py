"""Refusals that repeat: counted instead of recorded one by one. Law 3's exception, and how far it goes.

Rules of this file:

1. Of callers who proved nothing, from the fourth on. Whoever is known to us is worth a record, and a quota of them; what is
   refused beyond that quota is counted likewise, by caller instead of source (``Overdrawn``).
2. Nobody is answered with the id of a record that is not durable. A refusal that is counted is answered with that of the
   last one before it, of the same source and code, that was recorded by itself; the counted record names it (``of``).
3. Memory and records are bounded whatever comes: ``MAX_SOURCES`` sources are told apart, all others share one place.
4. What was counted is written every ``WINDOW_S``. Dying in between loses at most so much of counts, never a first one.
"""

import asyncio
import datetime
import ipaddress
import logging
from collections.abc import Callable
from typing import Final

from whygate.core.reasons import Code
from whygate.core.records import VERSION, AnyRecord, Client, DecisionRecord, LifeRecord, Repeats, Subject
from whygate.flow.ports import Clock, Ids, Ledger, LedgerUnavailable

FIRST: Final = 3
"""Recorded one by one: what a person mending a client produces, and enough to see what it is about."""
WINDOW_S: Final = 10.0
"""Between two counted records of a source. Ten seconds of counts are what a crash may lose."""
MAX_SOURCES: Final = 256
"""Sources and codes told apart. With ``FIRST`` and ``WINDOW_S`` it bounds what strangers can have written, from however
many addresses: some 80 records a second, where a disk takes thousands."""
ELSEWHERE: Final = ""
"""The source of everybody beyond ``MAX_SOURCES``."""

_log = logging.getLogger("whygate.repeats")


class _Source:
    """What came from one source with one code."""

    __slots__ = ("changed", "count", "newest", "recorded", "seen", "since", "specimen", "until")

    def __init__(self, now: datetime.datetime) -> None:
        self.recorded = 0
        """Recorded by themselves, or about to be."""
        self.newest: DecisionRecord | None = None
        """The last of them that is durable."""
        self.changed = asyncio.Event()
        self.seen = True
        """Whether anything came within this window."""
        self.count = 0
        self.since = self.until = now
        self.specimen: DecisionRecord | None = None
        """The first that was counted in this window: its record becomes the counted one."""


class Strangers:
    """Belongs to the event loop."""

    def __init__(self, ledger: Ledger, clock: Clock, ids: Ids) -> None:
        self._ledger = ledger
        self._clock = clock
        self._new_id = ids.new
        self._sources: dict[tuple[str, Code], _Source] = {}
        self._shed = 0
        self._shed_since = self._shed_until = clock.now()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def refused(self, who: str, code: Code, make: Callable[[], DecisionRecord]) -> DecisionRecord:
        """The durable record that stands for this refusal: its own (from ``make``), or one of the same kind. ``who``: the
        client's address.

        Raises ``LedgerUnavailable``.
        """
        name, source = self._source(self._name(who), code)
        source.seen = True
        while source.recorded >= FIRST:
            if source.newest is not None:
                self._count(source, name, make)
                return source.newest
            # The first ones are on their way to the disk.
            source.changed.clear()
            await source.changed.wait()
        return await self._alone(source, make())

    def shed(self) -> None:
        """One more request was turned away unread, because too much was going on."""
        now = self._clock.now()
        if not self._shed:
            self._shed_since = now
        self._shed += 1
        self._shed_until = now
        self._arm()

    async def flush(self) -> None:
        """Write what was counted. Forgets the sources that have been silent for a window."""
        records: list[AnyRecord] = []
        for key, source in list(self._sources.items()):
            if source.specimen is not None:
                records.append(_counted(source, source.specimen))
                source.count, source.specimen = 0, None
            elif not source.seen:
                del self._sources[key]
            source.seen = False
        if self._shed:
            records.append(self._gap())
            self._shed = 0
        if self._sources or records:
            self._arm()
        if not records:
            return
        try:
            await self._ledger.append(*records)
            # Dying here or before loses the counts of one window; the refusals they are of are durable.
        except LedgerUnavailable as broken:
            _log.error("%d counted records could not be written: %s", len(records), broken)

    async def close(self) -> None:
        """Write what was counted; nothing comes after."""
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()

    async def _alone(self, source: _Source, record: DecisionRecord) -> DecisionRecord:
        source.recorded += 1
        self._arm()
        try:
            await self._ledger.append(record)
        except BaseException:
            source.recorded -= 1
            raise
        finally:
            source.changed.set()
        source.newest = record
        return record

    def _count(self, source: _Source, name: str, make: Callable[[], DecisionRecord]) -> None:
        now = self._clock.now()
        if source.specimen is None:
            source.specimen = make()
            source.since = now
            if name == ELSEWHERE:
                self._nobodys(source.specimen)
        source.count += 1
        source.until = now

    def _name(self, who: str) -> str:
        return source_of(who)

    def _nobodys(self, record: DecisionRecord) -> None:
        """Take out of a record that stands for several sources what is one's alone."""
        record.client = Client()

    def _source(self, name: str, code: Code) -> tuple[str, _Source]:
        found = self._sources.get((name, code))
        if found is None and len(self._sources) >= MAX_SOURCES:
            name = ELSEWHERE
            found = self._sources.get((name, code))
        if found is None:
            found = self._sources[name, code] = _Source(self._clock.now())
        return name, found

    def _gap(self) -> LifeRecord:
        return LifeRecord(
            data={
                "code": Code.OVERLOAD_SHED.value,
                "count": self._shed,
                "since": self._shed_since.isoformat(),
                "until": self._shed_until.isoformat(),
            },
            id=self._new_id(),
            kind="gap",
            v=VERSION,
        )

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW_S, self._due)

    def _due(self) -> None:
        self._timer = None
        self._flushing = asyncio.ensure_future(self.flush())


class Overdrawn(Strangers):
    """The same for callers who are known and have used up their quota of records, by their ids."""

    def _name(self, who: str) -> str:
        return who or "?"  # not everybody's place

    def _nobodys(self, record: DecisionRecord) -> None:
        record.client = Client()
        record.subject = _SEVERAL


_SEVERAL: Final = Subject(id="", proof="", type="")


def source_of(client: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 that an IPv6 address is of, which one host has to itself."""
    if ":" not in client:
        return client[:64]
    try:
        address = ipaddress.IPv6Address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def _counted(source: _Source, record: DecisionRecord) -> DecisionRecord:
    assert source.newest is not None  # noqa: S101  nothing is counted before one was recorded
    record.repeats = Repeats(count=source.count, of=source.newest.id, since=source.since, until=source.until)
    return record
