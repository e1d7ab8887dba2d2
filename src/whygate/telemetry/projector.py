"""The projector: reads the ledger from a durable cursor and exports spans.

Rules of this file:

1. The cursor moves only after a collector took everything before it. While none does, it stands: nothing is lost.
2. What is sent again is the same, span for span: what spans depend on is in the records and in the cursor.
3. A call that has not ended holds nobody up: its spans are made when its completion is read.
4. A span that no collector takes is counted and left out; but only where the collector takes others. One that refuses
   whatever it is sent is the operator's to mend, and the cursor waits for that.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final, Protocol

import msgspec
import tenacity

from whygate.telemetry import status
from whygate.telemetry.building import Builder, Built
from whygate.telemetry.otlp import Encoder, Fate, Sent
from whygate.telemetry.spans import Instance

BATCH: Final = 2048
"""Records in one round: about 2,000 spans and 2 MB, far below what collectors take by default (20 MB), and a round is
short enough that stopping need not wait."""
POLL_MIN_S: Final = 0.1
"""Between two rounds that were not full: a round costs a request and two fsyncs, however little there is."""
POLL_MAX_S: Final = 0.2
STATUS_EVERY_S: Final = 1.0
BACKOFF_MAX_S: Final = 30.0
DRAIN_S: Final = 4.0
"""How long a projector that is told to stop goes on with what is there; the gateway waits five seconds for it."""
LAST_LOOK_S: Final = 0.1
"""Completions are durable up to 20 ms after their calls have ended: whoever stops right then still finds them."""

_log = logging.getLogger("whygate.projector")


class _Head(msgspec.Struct):
    id: str = ""


_HEAD: Final = msgspec.json.Decoder(_Head)


class Source(Protocol):
    """Where records come from."""

    def since(self, seq: int, limit: int) -> list[tuple[int, bytes]]:
        """Up to ``limit`` records after ``seq``, in order, each with its number."""

    def decision(self, id: str) -> bytes | None:  # noqa: A002  # ids are called id everywhere
        """The decision record of this id, where there is one."""


class Exporter(Protocol):
    """Where requests go. ``otlp.Collector`` is the real one."""

    def send(self, body: bytes) -> Sent: ...


class Round(Enum):
    """What one round came to."""

    MOVED = "moved"
    IDLE = "idle"
    STUCK = "stuck"


class _Stuck(Exception):
    """The collector takes nothing at the moment."""

    def __init__(self, sent: Sent) -> None:
        super().__init__(sent.note)
        self.sent = sent


class _Batch:
    """One round's records, on their way."""

    def __init__(self, rows: list[tuple[int, bytes]], built: Built) -> None:
        self.last = rows[-1]
        self.built = built
        self.parts = [built.spans] if built.spans else []
        """What is still to be sent, the next request last."""
        self.rejected = 0
        self.refused = 0


class Projector:
    """One ledger's projector. ``step`` is one round; ``run`` goes on until told to stop. Belongs to one thread."""

    def __init__(
        self,
        source: Source,
        exporter: Exporter,
        encoder: Encoder,
        ledger: Path,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._source = source
        self._exporter = exporter
        self._encoder = encoder
        self._cursor_path = status.cursor_path(ledger)
        self._status_path = status.status_path(ledger)
        self._wall_us = wall_us
        self._batch: _Batch | None = None
        """What is being delivered. Kept while the collector takes nothing: a search for a span that it refuses goes on
        where it was, however often it is interrupted."""
        self._checked = False
        self._begin(status.load_cursor(self._cursor_path))
        self.status = status.Status(seq=self._cursor.seq)
        self.full = False
        """Whether the last round took as many records as one may: then there are more."""
        self.after_s = 0.0
        """After a round that was stuck: how long the collector asked to wait."""

    def _begin(self, cursor: status.Cursor) -> None:
        self._cursor = cursor
        self._builder = Builder(self._source.decision, [Instance(ran.writer, ran.host, ran.ip) for ran in cursor.ran])

    def run(self, stop: threading.Event) -> None:
        """Export until ``stop``, then what is left, as long as the collector takes it and a few seconds at the most."""
        patient = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda done: done is Round.STUCK),
            wait=self._wait,
            sleep=tenacity.sleep_using_event(stop),
            stop=tenacity.stop_when_event_set(stop),
            retry_error_callback=lambda _: Round.STUCK,
        )
        poll_s, wrote_s = POLL_MIN_S, float("-inf")
        while not stop.is_set():
            done = patient(self._try)
            now_s = time.monotonic()
            if now_s - wrote_s >= STATUS_EVERY_S:
                wrote_s = now_s
                self._write_status()
            if done is Round.IDLE:
                stop.wait(poll_s)
                poll_s = min(poll_s * 2, POLL_MAX_S)
            else:
                poll_s = POLL_MIN_S
                if not self.full:
                    stop.wait(poll_s)
        self._drain()
        self._write_status()

    def _drain(self) -> None:
        until_s = time.monotonic() + DRAIN_S
        idle = 0
        while idle < 2 and time.monotonic() < until_s:
            done = self._try()
            if done is Round.STUCK:
                return
            if done is Round.IDLE:
                idle += 1
                time.sleep(LAST_LOOK_S if idle < 2 else 0)

    def step(self) -> Round:
        """One round: read, build, send, move the cursor. Raises what the source raises."""
        batch = self._batch or self._read()
        if batch is None:
            self._tell(waiting_since_us=0, trouble="")
            return Round.IDLE
        self._batch = batch
        try:
            self._deliver(batch)
        except _Stuck as stuck:
            self.after_s = stuck.sent.after_s
            self._tell_stuck(batch.built.oldest_us, str(stuck))
            return Round.STUCK
        # Dying here: the collector has the spans and the cursor does not know. They go out again, the same.
        self._batch = None
        self._builder.keep(batch.built)
        self._move(batch)
        self._count(batch)
        return Round.MOVED

    def _read(self) -> _Batch | None:
        self._check_ledger()
        rows = self._source.since(self._cursor.seq, BATCH)
        self.full = len(rows) == BATCH
        return _Batch(rows, self._builder.build(rows)) if rows else None

    def _try(self) -> Round:
        try:
            return self.step()
        except Exception as error:  # noqa: BLE001  # a busy or damaged ledger: the cursor stands, and the lag shows
            _log.exception("a round failed in an unforeseen way")
            self.after_s = 0.0
            self._tell_stuck(0, f"internal: {type(error).__name__}")
            return Round.STUCK

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Exponential with full jitter, so that many gateways don't come back at once; never sooner than asked for."""
        return max(self.after_s, tenacity.wait_random_exponential(multiplier=0.2, max=BACKOFF_MAX_S)(state))

    def _check_ledger(self) -> None:
        """Once, at start: a cursor of another ledger would skip what this one holds."""
        if self._checked:
            return
        seq = self._cursor.seq
        newest = self._source.since(seq - 1, 1) if seq else []
        # A later number alone says that old records were pruned, not that the ledger is another.
        if seq and (not newest or (newest[0][0] == seq and _id(newest[0][1]) != self._cursor.id)):
            _log.warning("the cursor at %d is not of this ledger: starting over", seq)
            self._begin(status.Cursor())
            self._tell(seq=0)
        self._checked = True

    def _deliver(self, batch: _Batch) -> None:
        """Send all of it, in halves where a collector refuses the whole. Raises ``_Stuck``."""
        while batch.parts:
            part = batch.parts[-1]
            sent = self._exporter.send(self._encoder.encode(part))
            if sent.fate is Fate.LATER or (sent.fate is Fate.NEVER and not self._takes_anything()):
                raise _Stuck(sent)
            batch.parts.pop()
            if sent.fate is Fate.NEVER and len(part) > 1:
                middle = len(part) // 2
                batch.parts += [part[middle:], part[:middle]]
            elif sent.fate is Fate.NEVER:
                batch.refused += 1
                _log.error("left out the span %s of trace %s: %s", part[0].span_id, part[0].trace_id, sent.note)
            elif sent.rejected or sent.note:
                batch.rejected += sent.rejected
                _log.warning("the collector took a request and dropped %d of its spans: %s", sent.rejected, sent.note)

    def _takes_anything(self) -> bool:
        """Whether the collector takes a request with nothing in it: if not, its refusals say nothing of our spans."""
        return self._exporter.send(b"").fate is Fate.TAKEN

    def _move(self, batch: _Batch) -> None:
        ran = tuple(status.Ran(writer=one.writer, host=one.host, ip=one.ip) for one in batch.built.instances.values())
        self._cursor = status.Cursor(seq=batch.last[0], id=_id(batch.last[1]), ran=ran)
        try:
            status.save_cursor(self._cursor_path, self._cursor)
        except OSError:
            # Going on is right: what a lost cursor costs is to send the same again.
            _log.exception("the cursor could not be written")

    def _count(self, batch: _Batch) -> None:
        """The round is over: into the log and the status with it."""
        for seq, why in batch.built.unreadable:
            _log.error("no span could be made of record %d: %s", seq, why)
        if self.status.trouble:
            _log.info("exporting again")
        before = self.status
        self._tell(
            seq=self._cursor.seq,
            waiting_since_us=0,
            trouble="",
            exported=before.exported + len(batch.built.spans) - batch.rejected - batch.refused,
            rejected=before.rejected + batch.rejected,
            refused=before.refused + batch.refused,
            unreadable=before.unreadable + len(batch.built.unreadable),
        )

    def _tell(self, **changes: int | str) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)

    def _tell_stuck(self, oldest_us: int, trouble: str) -> None:
        if not self.status.trouble:
            _log.warning("not exporting: %s", trouble)
        self._tell(waiting_since_us=oldest_us or self.status.waiting_since_us, trouble=trouble)
        self._write_status()

    def _write_status(self) -> None:
        self._tell(updated_us=self._wall_us())
        try:
            status.save_status(self._status_path, self.status)
        except OSError as error:
            _log.warning("the status could not be written: %s", error)


def _id(data: bytes) -> str:
    """The id of a record of whatever kind; empty where it can't be read."""
    try:
        return _HEAD.decode(data).id
    except msgspec.MsgspecError:
        return ""
