"""Exactly one process owns a ledger.

The lock is a file beside the ledger, held with ``flock``: it goes with its process, however that ends. The ledger's own
file is never opened for this: closing any descriptor of it would drop the POSIX locks that SQLite holds on it.
"""

import contextlib
import datetime
import fcntl
import os
import socket
from pathlib import Path

import msgspec

from whygate.flow.ports import LedgerUnavailable


class LedgerOwned(LedgerUnavailable):
    """Another process owns the ledger."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lock, for the message that the second comer gets. Told by the holder; nothing is decided by it."""

    host: str
    pid: int
    since: str


class OwnerLock:
    """Held from its making until ``release``, or until the process ends."""

    def __init__(self, ledger: Path) -> None:
        """Raises ``LedgerOwned`` where another process, or another ledger object of this one, holds it."""
        self.path = ledger.with_name(ledger.name + ".lock")
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self._fd)
            os.close(self._fd)
            raise LedgerOwned(_refusal(ledger, holder)) from None
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # Dying before or within this leaves a lock file that says nothing, or who held it last: the lock itself is gone
        # with us, and the next owner writes its own name.
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, msgspec.json.encode(Owner(host=socket.gethostname(), pid=os.getpid(), since=now)), 0)

    def check(self) -> None:
        """Raises ``LedgerOwned`` where the lock file is no longer the one we hold: a second owner could lock another."""
        held = os.fstat(self._fd)
        with contextlib.suppress(FileNotFoundError):
            there = self.path.stat()
            if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino):
                return
        raise LedgerOwned(f"the lock file {self.path} was removed or replaced while in use")

    def release(self) -> None:
        """The file stays: whoever removed it could remove the one that a newcomer has just locked."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _holder(fd: int) -> Owner | None:
    with contextlib.suppress(msgspec.MsgspecError, OSError):
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=Owner)
    return None


def _refusal(ledger: Path, holder: Owner | None) -> str:
    who = f"process {holder.pid} on {holder.host} since {holder.since}" if holder else "another process"
    return (
        f"the ledger {ledger} is owned by {who}. One gateway writes a ledger: stop that one first, or give this one a "
        "ledger of its own (setting `ledger`). Reading needs no ownership: `whygate why`, `task` and `tail` work meanwhile."
    )
