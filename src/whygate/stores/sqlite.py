"""The ledger on SQLite: one owner, one writer thread, one transaction for whatever has come in since the last.

Rules of this file:

1. An append returns after the commit that holds it, and after a look that the file is still the one at its path.
2. No artificial delay: what comes in while one commit runs is the next one's batch. Completions alone wait, at most
   ``FOLLOW_S``, for something to ride with.
3. The first error ends it. What waits and what comes later gets ``LedgerUnavailable`` with the first reason, and the
   records whose commit reported the error are *unknown* until the next start has read the file again.
4. Bounded: a caller waits for its append, so appends are bounded by calls in flight; completions are bounded by
   ``MAX_FOLLOWING``, and every wait by ``HANG_S``: then those who wait hear that nobody knows what was written.
5. A disk that is nearly full takes no decisions any more, so that starts, stops and what operators do still go in.
6. Whoever leaves while its decision is being written has its call ended here: nobody else knows of it.
"""

import asyncio
import collections
import contextlib
import datetime
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from whygate.core.decision import Claim
from whygate.core.instants import from_us
from whygate.core.records import AnyRecord, CompletionRecord, DecisionRecord
from whygate.flow.ports import NOTHING, ClaimFailed, LedgerUnavailable, StoredTask
from whygate.stores.book import Book, Unwritable, sealed_key
from whygate.stores.clocks import steady_us, wall_us
from whygate.stores.disk import Disk, policy_rows
from whygate.stores.faults import HANG_S, Ballast, Gaps, Watchdog, explained, is_full, reason_of
from whygate.stores.owner import OwnerLock
from whygate.stores.waiting import Entry, Waiting, answer, unsent

FOLLOW_S: Final = 0.02
WATCH_S: Final = 1.0
"""How often the ledger looks whether all its files are still there; those that hold records, at every commit."""
MAX_BATCH: Final = 512
"""Appends in one commit: more would make the first of them wait for the last."""
MAX_WAITING: Final = 20_000
"""Appends that wait. Calls in flight are bounded long before; this bounds memory where they are not."""
MAX_FOLLOWING: Final = 100_000
"""Completions that wait. So many can only mean that the disk hangs: then nothing may pass any more."""


class SqliteLedger:
    """Implements ``flow.ports.Ledger``. ``append`` and ``follow`` belong to event loops; the rest may be called anywhere."""

    def __init__(
        self,
        path: Path,
        *,
        start: Mapping[str, Any],
        wall: Callable[[], int] = wall_us,
        steady: Callable[[], int] = steady_us,
        on_failed: Callable[[str], None] | None = None,
    ) -> None:
        """Own and open the ledger at ``path``, and write what a start writes. Blocks for some fsyncs.

        ``start`` is the data of the ``start`` record (no floats, no secrets). ``wall`` gives microseconds since 1970,
        ``steady`` those of a clock that nobody sets.
        ``on_failed`` is told the reason once, in whatever thread noticed; the gateway then reports it and exits.

        Raises ``LedgerUnavailable`` and its kinds: ``LedgerOwned``, ``LedgerNewer``, ``LedgerForeign``, ``LedgerDamaged``.
        """
        self.path = path
        self._wall = wall
        self._steady = steady
        self._on_failed = on_failed
        self._waiting = Waiting()
        self._following: collections.deque[CompletionRecord] = collections.deque()
        self._texts: collections.deque[tuple[str, str, str]] = collections.deque()
        self._nudge_due = False
        self._closing = False
        self._ended = False
        """Whether the stop record is written."""
        self._failed: str | None = None
        self._failing = threading.Lock()
        self._told_us, self._looked = 0, 0.0
        self._ballast, self._gaps = Ballast(path), Gaps(path)
        self._at_work: list[Entry] = []
        self.scarce = False
        """Whether the disk is nearly full: then no decision is written, and so none is made."""
        self.dropped = 0
        """Completions of calls that had ended already, or that came when nothing could be written any more."""
        with explained(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._owner = OwnerLock(path)
            self._disk, self._book = self._begin(start)
        self.scarce = not self._ballast.make()
        self._watchdog = Watchdog(self._hung)
        self._writer = threading.Thread(target=self._run, name="whygate-ledger", daemon=True)
        self._writer.start()

    def _begin(self, start: Mapping[str, Any]) -> tuple[Disk, Book]:
        try:
            try:
                return self._open(start)
            except sqlite3.Error as error:
                if not (is_full(error) and self._ballast.release()):
                    raise
                return self._open(start)
        except BaseException:
            self._owner.release()
            raise

    def _open(self, start: Mapping[str, Any]) -> tuple[Disk, Book]:
        disk = Disk(self.path)
        try:
            book = disk.book()
            book.begin(self._wall(), self._steady())
            book.life("start", start)
            # In the same commit: dying before it leaves the calls open for the next start, dying after it finds them
            # ended. So each of them is ended once.
            book.unknown()
            gap = self._gaps.kept()
            if gap is not None:
                gap.until_us = book.last_us
                book.life("gap", gap.told())
            disk.commit(book.take())
            # Dying here has the next start tell of the gap once more.
            self._gaps.forget()
            disk.watch()
        except BaseException:
            disk.close()
            raise
        return disk, book

    # --- for the event loop ---

    async def append(
        self, *records: AnyRecord, claims: tuple[Claim, ...] = (), sealed: Mapping[str, bytes] = NOTHING
    ) -> None:
        """See ``flow.ports.Ledger``. Cancelled before its commit begins, it writes nothing; later, everything, and the calls
        that it allowed are ended as not forwarded.
        """
        if self.scarce and any(isinstance(record, DecisionRecord) for record in records):
            raise self._lost(LedgerUnavailable(f"the disk of the ledger {self.path} is nearly full"))
        if len(self._waiting) > MAX_WAITING:
            raise self._lost(LedgerUnavailable(f"{MAX_WAITING} appends wait for the ledger {self.path}"))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        entry = Entry(records, claims, future, loop)
        if sealed:
            entry.sealed = tuple((sealed_key(name), body) for name, body in sealed.items())
        self._waiting.add(entry)
        # After putting, not before: the writer may have ended in between, and then nobody else would answer.
        if self._failed is not None:
            self._refuse_waiting(self._failed)
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled() and entry.refused is None:
                self._left(entry)  # written, and the caller left before it was told
            raise
        except Unwritable:
            raise
        except LedgerUnavailable as error:
            raise self._lost(error) from None

    def _left(self, entry: Entry) -> None:
        """Its caller is gone, and what it allowed will never be sent."""
        for completion in unsent(entry.records, self._wall()):
            self.follow(completion)

    def _lost(self, error: LedgerUnavailable) -> LedgerUnavailable:
        """Count what could not be recorded; the next commit, or the next start, tells."""
        self._gaps.note(str(error), self._wall())
        return error

    def follow(self, record: CompletionRecord) -> None:
        """See ``flow.ports.Ledger``. A second completion of one call is dropped and counted."""
        if self._failed is not None:
            self.dropped += 1
            return
        if len(self._following) >= MAX_FOLLOWING:
            self._fail(f"{MAX_FOLLOWING} completions wait for the ledger {self.path}: the disk does not answer")
            return
        self._following.append(record)
        if self._nudge_due:
            return
        try:
            # A timer of the loop, which is awake anyway: waking the writer at once costs more than the commit.
            asyncio.get_running_loop().call_later(FOLLOW_S, self._nudge)
            self._nudge_due = True
        except RuntimeError:  # no loop runs here
            self._waiting.wake()

    def _nudge(self) -> None:
        self._nudge_due = False
        if self._following:
            self._waiting.wake()

    # --- for everybody ---

    def put_policy(self, digest: str, texts: Mapping[str, str]) -> None:
        self._texts.extend(policy_rows(digest, texts))

    def tasks(self) -> list[StoredTask]:
        """Tasks that are neither closed nor expired, as copies."""
        return [task.plain() for task in list(self._book.state.tasks.values())]

    def policy_in_force(self) -> str:
        return self._book.state.policy

    def in_force(self) -> list[tuple[str, str, bytes]]:
        return list(self._book.state.in_force)

    def now(self) -> datetime.datetime:
        """The time that counts for expiry: the later of the wall clock and the last recorded time. Never runs backwards,
        so the ledger is a ``flow.ports.Clock``. For one thread.
        """
        self._told_us = max(self._told_us, self._book.last_us, self._wall())
        return from_us(self._told_us)

    @property
    def writer(self) -> str:
        return self._book.writer

    @property
    def newest(self) -> int:
        """Number of the newest record, durable or about to be."""
        return self._book.seq

    @property
    def failed(self) -> str | None:
        """Why nothing can be written any more; ``None`` while all is well."""
        return self._failed

    def close(self) -> None:
        """Write what waits and a ``stop`` record, move everything into the file, and give the ledger up. Blocks; may be
        called again. After a failure it writes nothing.
        """
        self._closing = True
        self._waiting.wake()
        while self._writer.is_alive() and not self._watchdog.barked.is_set():
            self._writer.join(HANG_S / 100)
        self._refuse_waiting(self._failed or f"the ledger {self.path} is closed")
        if self._writer.is_alive():
            return  # stuck with the disk: file and lock go with the process, and not before
        self._watchdog.stop()
        if not self._ended:
            self._gaps.keep()
        self._ballast.release()
        self._disk.close()
        self._owner.release()

    # --- the writer thread ---

    def _run(self) -> None:
        try:
            while not self._closing and self._failed is None:
                self._write(self._collect())
                self._look()
            if self._failed is None:
                self._end()
        except BaseException as error:  # noqa: BLE001  whatever it was: after it, nothing may pass
            self._broken(error)

    def _end(self) -> None:
        while entries := self._waiting.drain(MAX_BATCH):
            self._write(entries)
        self._watchdog.begin()
        self._book.begin(self._wall(), self._steady())
        self._follow_all()
        self._tell_gap()
        self._book.life("stop", {})
        # Dying before this commit looks like a crash to the next start; after it, like an orderly end.
        self._commit()
        self._ended = True
        self._fail(f"the ledger {self.path} is closed", told=False)
        self._disk.finish()
        self._watchdog.end()

    def _collect(self) -> list[Entry]:
        """What has come in, once something has or ``WATCH_S`` is over."""
        try:
            return self._waiting.take(MAX_BATCH, within_s=WATCH_S)
        except queue.Empty:
            return []

    def _look(self) -> None:
        """Now and then, at work or idle: whether all files are still there, and room."""
        if (now := time.monotonic()) - self._looked < WATCH_S:
            return
        self._looked = now
        self._watchdog.begin()
        self._disk.check_identity(every=True)
        self._owner.check()
        if self.scarce:
            self.scarce = not self._ballast.make()
        self._watchdog.end()

    def _write(self, entries: list[Entry]) -> None:
        if not (entries or self._following or self._texts or self._gap_over):
            return
        self._at_work = entries
        self._watchdog.begin()
        try:
            self._book.begin(self._wall(), self._steady())
            self._follow_all()
            if self._gap_over:
                self._tell_gap()
            for entry in entries:
                if entry.future.cancelled():
                    continue  # nobody waits for it any more, and nothing rests on it
                try:
                    self._book.admit(entry.records, entry.claims)
                    entry.taken = True
                except (ClaimFailed, Unwritable) as refused:
                    entry.refused = refused
            self._commit()
        except BaseException as error:
            reason = self._broken(error)
            for entry in entries:
                entry.refused = LedgerUnavailable(reason)
            answer(entries, self._left)
            raise
        self._watchdog.end()
        self._at_work = []
        answer(entries, self._left)

    @property
    def _gap_over(self) -> bool:
        return self._gaps.open is not None and not self.scarce

    def _tell_gap(self) -> None:
        gap = self._gaps.take()
        if gap is not None:
            self._book.life("gap", gap.told())

    def _follow_all(self) -> None:
        while self._following:
            record = self._following.popleft()
            try:
                taken = self._book.follow(record)
            except Unwritable:
                taken = False  # its call stays open and is ended as unknown at the next start
            if not taken:
                self.dropped += 1

    def _commit(self) -> None:
        texts = [self._texts.popleft() for _ in range(len(self._texts))]
        sealed = [row for entry in self._at_work if entry.taken for row in entry.sealed]
        batch = self._book.take()
        if batch is not None or texts:
            self._disk.commit(batch, texts, sealed)

    # --- the end of it ---

    def _broken(self, error: BaseException) -> str:
        """Nothing can be written any more, for this reason."""
        reason = reason_of(self.path, error, uncertain=self._disk.uncertain)
        if is_full(error):
            self._ballast.release()
        if self._fail(reason):
            self._gaps.keep()
        return reason

    def _hung(self) -> None:
        error = TimeoutError(f"the disk has not answered for {HANG_S:.0f} s")
        reason = reason_of(self.path, error, uncertain=True)
        if not self._fail(reason):
            return
        for entry in self._at_work:
            entry.refused = LedgerUnavailable(reason)
        answer(self._at_work, self._left)
        self._gaps.keep()  # last: it may hang as well

    def _fail(self, reason: str, *, told: bool = True) -> bool:
        """From now on nothing is written. The first reason stands; whether this is it."""
        with self._failing:
            if self._failed is not None:
                return False
            self._failed = reason
        if told:
            self._gaps.note(reason, self._wall(), count=0)
        self._refuse_waiting(reason)
        if told and self._on_failed is not None:
            with contextlib.suppress(Exception):  # whoever is told can't keep those who wait from their answer
                self._on_failed(reason)
        return True

    def _refuse_waiting(self, reason: str) -> None:
        entries = self._waiting.drain(MAX_BATCH)
        while entries:
            for entry in entries:
                entry.refused = LedgerUnavailable(reason)
            answer(entries, self._left)
            entries = self._waiting.drain(MAX_BATCH)
