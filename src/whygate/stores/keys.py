"""Keys that live beside the ledger: made once, read at every start. What each is for: ``docs/keys.md``."""

import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

import msgspec

KEY_BYTES: Final = 32


class KeysRefused(Exception):
    """The keys can't be used as they lie there; the message says what to do."""


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    trace: bytes
    """Trace ids from task ids."""
    digest: bytes
    """Digests of arguments, results and goals."""
    payload: bytes
    """What people are shown, and what elevations are bound to: sealed beside the records."""

    def __repr__(self) -> str:
        return f"Keys({', '.join(f'{name}={print_}' for name, print_ in self.fingerprints().items())})"

    def fingerprints(self) -> dict[str, str]:
        """What tells one key from another and nothing else: for start records, so that an exchange shows."""
        return {name: _fingerprint(getattr(self, name)) for name in self.__struct_fields__}


def load_or_create(folder: Path) -> Keys:
    """The keys in ``folder``, made where they are missing.

    Raises ``KeysRefused`` where others than the owner can read them, or where a file is no key. Does not check that they
    are the ones a ledger was written with: compare fingerprints with its start records.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _private(folder)
    return Keys(**{name: _load_or_create(folder, name) for name in Keys.__struct_fields__})


def _load_or_create(folder: Path, name: str) -> bytes:
    path = folder / f"{name}.key"
    if not path.exists():
        _create(path)
    _private(path)
    try:
        found = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        found = b""
    if len(found) != KEY_BYTES:
        raise KeysRefused(f"{path} is no key: {2 * KEY_BYTES} hex digits belong in it. Restore it from a backup.")
    return found


def _create(path: Path) -> None:
    """Put a new key in place as a whole. Where two start at once, the first one's key stands for both."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_bytes(KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Dying up to here leaves a draft that nobody reads, and no key: the next start makes one.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        # Dying here leaves the whole key under both names.
    finally:
        draft.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable: a file that is synced under a name that is not can be gone after a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        wanted = "700" if path.is_dir() else "600"
        raise KeysRefused(
            f"{path} can be used by others than its owner (mode {mode:03o}). Keys that others may have read prove nothing: "
            f"if that can't be, `chmod {wanted} {path}`; if it can, replace them (docs/keys.md)."
        )


def _fingerprint(key: bytes) -> str:
    return "sha256:" + hashlib.sha256(b"whygate key\0" + key).hexdigest()[:16]
