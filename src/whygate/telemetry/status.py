"""Two small files beside the ledger: how far the projector is (``.otlp-cursor``) and how it fares (``.otlp-status``).

The cursor is durable: it moves only after a collector took what came before it. The status is for eyes and ``/metrics``.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

VERSION: Final = 1


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A writer of records, and where its newest start says that it runs."""

    writer: str
    host: str = ""
    ip: str = ""


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Everything up to ``seq`` has been exported."""

    v: int = VERSION
    seq: int = 0
    id: str = ""
    """The id of that record: tells this ledger from another that was put in its place."""
    ran: tuple[Ran, ...] = ()
    """As of that record. Kept, so that spans sent again have the resource that they had the first time."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    v: int = VERSION
    seq: int = 0
    """As in the cursor."""
    waiting_since_us: int = 0
    """Time of the oldest record that is read but not exported; 0 where there is none."""
    updated_us: int = 0
    """Wall clock of the projector when it wrote this."""
    exported: int = 0
    """Spans taken by a collector since this projector started."""
    rejected: int = 0
    """Spans that a collector dropped of what it took."""
    refused: int = 0
    """Spans that no collector would ever take."""
    unreadable: int = 0
    """Records that no span could be made of."""
    trouble: str = ""
    """Why it is not exporting at the moment; empty where it is."""


def cursor_path(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".otlp-cursor")


def status_path(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".otlp-status")


def load_cursor(path: Path) -> Cursor:
    """The cursor, or the beginning where there is none that can be read: spans that are sent again do no harm."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode(path.read_bytes(), type=Cursor)
        if found.v == VERSION and found.seq > 0:
            return found
    return Cursor()


def save_cursor(path: Path, cursor: Cursor) -> None:
    """Put the cursor in place, durably and as a whole. Raises ``OSError``."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(cursor))
        file.flush()
        os.fsync(file.fileno())
    # Dying here leaves the old cursor and a draft that nobody reads: the last batch goes out again, unchanged.
    draft.replace(path)
    # Dying here may bring the old cursor back after a power cut; the same again.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_status(path: Path) -> Status | None:
    """The status, or ``None`` where there is none that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Status)
    return None


def save_status(path: Path, status: Status) -> None:
    """Put the status in place as a whole; nothing rests on it, so nothing waits for the disk. Raises ``OSError``."""
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(msgspec.json.encode(status))
    draft.replace(path)
