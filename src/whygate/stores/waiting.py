"""Appends that wait for their commit, and how those who wait are told."""

import asyncio
import contextlib
import os
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import msgspec

from whygate.core.decision import Claim
from whygate.core.ids import uuid7
from whygate.core.records import VERSION, AnyRecord, CompletionRecord, DecisionRecord


class Entry(msgspec.Struct, gc=False):
    """One append that waits for its commit."""

    records: tuple[AnyRecord, ...]
    claims: tuple[Claim, ...]
    future: "asyncio.Future[None]"
    loop: asyncio.AbstractEventLoop
    refused: Exception | None = None
    sealed: tuple[tuple[bytes, bytes], ...] = ()
    taken: bool = False
    """Whether it is in the book, and so in the commit."""


class Waiting:
    """The appends that no commit has taken yet. Filled by event loops, emptied by the writer's thread."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waking: asyncio.AbstractEventLoop | None = None
        """The loop that is going to wake the writer."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """For the entry's own loop. The writer is woken once for all calls that the loop has ready: larger batches, and
        fewer fights for the interpreter.
        """
        self._entries.append(entry)
        if self._waking is not entry.loop:
            self._waking = entry.loop
            entry.loop.call_soon(self._woken)

    def _woken(self) -> None:
        self._waking = None
        self.wake()

    def wake(self) -> None:
        """Have the writer look, for what does not wait here as well: completions, texts, the end."""
        self._calls.put(None)

    def take(self, most: int, *, within_s: float) -> list[Entry]:
        """What waits once somebody wakes. Raises ``queue.Empty`` where nobody does."""
        self._calls.get(timeout=within_s)
        return self.drain(most)

    def drain(self, most: int) -> list[Entry]:
        """What waits now; where that is more than ``most``, the writer is woken again for the rest."""
        entries: list[Entry] = []
        with contextlib.suppress(IndexError):
            while len(entries) < most:
                entries.append(self._entries.popleft())
        if self._entries:
            self.wake()
        return entries


def answer(entries: Iterable[Entry], left: Callable[[Entry], None]) -> None:
    """Tell all who wait, each loop once. ``left`` is called in the loop for those that were written and whose callers have
    left meanwhile.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[Entry]] = {}
    for entry in entries:
        by_loop.setdefault(entry.loop, []).append(entry)
    for loop, waiting in by_loop.items():
        with contextlib.suppress(RuntimeError):  # a loop that is closed has nobody waiting
            loop.call_soon_threadsafe(_settle, waiting, left)


def _settle(entries: list[Entry], left: Callable[[Entry], None]) -> None:
    for entry in entries:
        if entry.future.done():
            if entry.future.cancelled() and entry.taken and entry.refused is None:
                left(entry)
        elif entry.refused is None:
            entry.future.set_result(None)
        else:
            entry.future.set_exception(entry.refused)


def unsent(records: Iterable[AnyRecord], now_us: int) -> Iterator[CompletionRecord]:
    """The ends of calls that ``records`` allow and that nobody will send."""
    for record in records:
        if isinstance(record, DecisionRecord) and record.effect == "allow" and record.enforcement == "gateway":
            yield CompletionRecord(
                decision=record.id,
                error="not_forwarded",
                id=uuid7(now_us // 1000, os.urandom(10)),
                is_error=True,
                kind=CompletionRecord.KIND,
                task=record.context.task,
                v=VERSION,
            )
