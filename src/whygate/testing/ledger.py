"""A ledger in memory for the tests of everything that writes to one: the same order, claims and live state as the real.

It can fail both ways: ``fail_next(written=True)`` has written what it reports as failed, ``fail_next(written=False)`` has
not. As with the real one, nothing can be written after that, and only opening it again tells which it was.
"""

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from whygate.core.decision import Claim
from whygate.core.instants import from_us
from whygate.core.records import AnyRecord, CompletionRecord, decode
from whygate.flow.ports import NOTHING, LedgerUnavailable, StoredTask
from whygate.stores.book import Book, Unwritable
from whygate.stores.clocks import wall_us
from whygate.stores.state import LiveState, fold


class MemoryDisk:
    """What outlives a ``MemoryLedger``: give it to the next one, as a file would be opened again."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.policies: dict[str, dict[str, str]] = {}
        self.sealed: dict[str, bytes] = {}
        self.writer = "fake"


class MemoryLedger:
    """Implements ``flow.ports.Ledger``. Completions are written at once: no later than the port allows."""

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        *,
        start: Mapping[str, Any] | None = None,
        wall: Callable[[], int] = wall_us,
        steady: Callable[[], int] = int,
    ) -> None:
        self.disk = disk or MemoryDisk()
        self._wall = wall
        self._steady = steady
        self.failed: str | None = None
        self.dropped = 0
        self._fail_next: bool | None = None
        self._texts: dict[str, dict[str, str]] = {}
        self._sealed: dict[str, bytes] = {}
        self._told_us = 0
        state = fold(self.disk.leaves).state if self.disk.leaves else LiveState()
        newest = decode(self.disk.leaves[-1]) if self.disk.leaves else None
        self._book = Book(
            writer=self.disk.writer,
            state=state,
            seq=newest.seq if newest else 0,
            last_us=(newest.time - from_us(0)) // datetime.timedelta(microseconds=1) if newest else 0,
        )
        self._book.begin(self._wall(), self._steady())
        self._book.life("start", start or {})
        self._book.unknown()
        self._commit()

    async def append(
        self, *records: AnyRecord, claims: tuple[Claim, ...] = (), sealed: Mapping[str, bytes] = NOTHING
    ) -> None:
        if self.failed is not None:
            raise LedgerUnavailable(self.failed)
        self._book.begin(self._wall(), self._steady())
        try:
            self._book.admit(records, claims)
            self._sealed.update(sealed)
        finally:
            self._commit()

    def follow(self, record: CompletionRecord) -> None:
        if self.failed is not None:
            self.dropped += 1
            return
        self._book.begin(self._wall(), self._steady())
        try:
            taken = self._book.follow(record)
            self._commit()
        except (Unwritable, LedgerUnavailable):
            taken = False
        if not taken:
            self.dropped += 1

    def put_policy(self, digest: str, texts: Mapping[str, str]) -> None:
        self._texts.setdefault(digest, dict(texts))

    def tasks(self) -> list[StoredTask]:
        return [task.plain() for task in self._book.state.tasks.values()]

    def policy_in_force(self) -> str:
        return self._book.state.policy

    def in_force(self) -> list[tuple[str, str, bytes]]:
        return list(self._book.state.in_force)

    def now(self) -> datetime.datetime:
        self._told_us = max(self._told_us, self._book.last_us, self._wall())
        return from_us(self._told_us)

    def close(self) -> None:
        if self.failed is not None:
            return
        self._book.begin(self._wall(), self._steady())
        self._book.life("stop", {})
        self._commit()
        self.failed = "the ledger is closed"

    # --- for tests ---

    @property
    def records(self) -> list[AnyRecord]:
        """Everything that is durable, in order."""
        return [decode(data) for data in self.disk.leaves]

    def of(self, kind: str) -> list[Any]:
        """The durable records of one kind."""
        return [record for record in self.records if record.kind == kind]

    def fail_next(self, *, written: bool) -> None:
        """The next commit reports an error: having written everything, or nothing."""
        self._fail_next = written

    def _commit(self) -> None:
        batch = self._book.take()
        if batch is None:
            return
        if self._fail_next is not False:
            self.disk.leaves += [row[-1] for row in batch.rows]
            for digest, texts in self._texts.items():
                self.disk.policies.setdefault(digest, texts)
            self._texts = {}
            self.disk.sealed |= self._sealed
            self._sealed = {}
        if self._fail_next is not None:
            self._fail_next = None
            self.failed = "the fake ledger was told to fail"
            raise LedgerUnavailable(self.failed)
