"""When the disk fails the ledger: room that was put by, a disk that does not answer, and what could not be recorded.

Rules of this file:

1. Everything here is best effort: none of it may keep a ledger that works from working, nor those who wait from hearing.
2. What is beside the ledger (``.ballast``, ``.gap``) holds no record and nothing secret; deleting it breaks nothing.
"""

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from whygate.core.instants import from_us
from whygate.flow.ports import LedgerUnavailable

HANG_S: Final = 10.0
"""A commit that takes longer never comes, as far as a caller is concerned: clients give up within a minute. The slowest
fsync of a healthy disk that we measured took 0.1 s."""
_LOOKS: Final = 10
"""Within ``HANG_S``. Counted instead of read off a clock: a process that was stopped and goes on has not hung."""
REASON: Final = 500
"""Characters of a reason that go into a record."""
BALLAST_BYTES: Final = 16 * 1024 * 1024
"""Some 10,000 records: enough for every start, stop and action of an operator until there is room again."""


def is_full(error: BaseException) -> bool:
    """Whether it failed for want of room."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def reason_of(path: Path, error: BaseException, *, uncertain: bool) -> str:
    """Why nothing can be written any more, for operators."""
    told = str(error) if isinstance(error, LedgerUnavailable) else f"the ledger {path} can't write: {error}"
    if uncertain:
        told += " (whether the last records were written is not known; the next start reads them again)"
    return told


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What goes wrong while the ledger is opened, in our words."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnavailable(f"the ledger {path} can't be opened: {error}") from error


class Ballast:
    """Room on the ledger's disk that is taken while all is well, and given up when there is none left."""

    def __init__(self, ledger: Path) -> None:
        self.path = ledger.with_name(ledger.name + ".ballast")

    def make(self) -> bool:
        """Take the room; whether it is taken. Leaves nothing behind where there is not enough, for others to use."""
        try:
            found = os.statvfs(self.path.parent)
            if found.f_bavail * found.f_frsize < 2 * BALLAST_BYTES:
                return self._is_made()
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _allocate(fd)
            finally:
                os.close(fd)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Give the room up; whether there was any."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

    def _is_made(self) -> bool:
        with contextlib.suppress(OSError):
            return self.path.stat().st_size >= BALLAST_BYTES
        return False


def _allocate(fd: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, BALLAST_BYTES)
        return
    block = bytes(1024 * 1024)  # not a hole: that would take no room
    for at in range(0, BALLAST_BYTES, len(block)):
        os.pwrite(fd, block, at)


class Gap(msgspec.Struct, kw_only=True):
    """A time in which nothing could be recorded."""

    reason: str
    since_us: int
    until_us: int
    unrecorded: int = 0
    """Appends that were refused: each of them a call that was turned down, or an action that was not taken."""

    def told(self) -> dict[str, Any]:
        """As the data of its record."""
        return {
            "reason": self.reason,
            "since": from_us(self.since_us).isoformat(),
            "unrecorded": self.unrecorded,
            "until": from_us(self.until_us).isoformat(),
        }


class Gaps:
    """What could not be recorded since it was last told of. For any thread.

    Where the process has to end before it can tell, a note beside the ledger is for its next start. The note is not durable:
    it is about a disk that fails.
    """

    def __init__(self, ledger: Path) -> None:
        self.path = ledger.with_name(ledger.name + ".gap")
        self.open: Gap | None = None
        self._lock = threading.Lock()

    def note(self, reason: str, now_us: int, *, count: int = 1) -> None:
        """``count`` more could not be recorded. The first reason stands."""
        with self._lock:
            if self.open is None:
                self.open = Gap(reason=reason[:REASON], since_us=now_us, until_us=now_us)
            self.open.unrecorded += count
            self.open.until_us = now_us

    def take(self) -> Gap | None:
        """What is to be told now."""
        with self._lock:
            gap, self.open = self.open, None
        return gap

    def keep(self) -> None:
        """Leave what was not told to the next start."""
        gap = self.open
        if gap is None:
            return
        draft = self.path.with_name(self.path.name + ".new")
        with contextlib.suppress(OSError):
            draft.write_bytes(msgspec.json.encode(gap))
            draft.chmod(0o600)
            # Dying before this leaves the note as it was, or none.
            draft.replace(self.path)

    def kept(self) -> Gap | None:
        """What the last process left; ``None`` where there is nothing that can be read."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self.path.read_bytes(), type=Gap)
        return None

    def forget(self) -> None:
        """It was told."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class Watchdog:
    """Sees from a thread of its own when the writer's thread is stuck with the disk."""

    def __init__(self, hung: Callable[[], None]) -> None:
        """``hung`` is called once, from the watchdog's thread."""
        self._hung = hung
        self._steps = 0
        """Odd: the writer is with the disk."""
        self._stop = threading.Event()
        self.barked = threading.Event()
        threading.Thread(target=self._run, name="whygate-ledger-watch", daemon=True).start()

    def begin(self) -> None:
        self._steps += 1

    def end(self) -> None:
        self._steps += 1

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        known, looks = 0, 0
        while not self._stop.wait(HANG_S / _LOOKS):
            steps = self._steps
            looks = looks + 1 if steps % 2 and steps == known else 0
            known = steps
            if looks >= _LOOKS:
                self.barked.set()
                self._hung()
                return
