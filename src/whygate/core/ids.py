"""Ids: made from time and randomness that are passed in, so that this file stays pure."""

import hashlib
import re
from typing import Final

from whygate.core.calls import TraceParent

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VARIANT: Final = {f"{digit:x}": f"{digit & 0x3 | 0x8:x}" for digit in range(16)}
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid7(unix_ms: int, random: bytes) -> str:
    """A UUID version 7 (RFC 9562 section 5.7) as text, from milliseconds since 1970 and 10 random bytes."""
    time, chance = f"{unix_ms & 0xFFFF_FFFF_FFFF:012x}", random.hex()
    # 48 bits of time, version 7, 12 random bits, variant 0b10, 62 random bits; put together as text, which is quicker.
    return f"{time[:8]}-{time[8:]}-7{chance[1:4]}-{_VARIANT[chance[4]]}{chance[5:8]}-{chance[8:]}"


def is_uuid(text: str) -> bool:
    """Whether ``text`` has the shape of the ids we hand out."""
    return _UUID.fullmatch(text) is not None


def trace_id(key: bytes, task_id: str) -> str:
    """The trace of a task: a keyed hash, so that every gateway agrees and a guessed task id gives nothing away."""
    return hashlib.blake2b(f"trace\0{task_id}".encode(), digest_size=16, key=key).hexdigest()


def span_id(role: str, of: str) -> str:
    """The id of one span, derived from what it shows: ``root`` of a trace id; ``server``, ``client`` or ``authorize``
    of a decision's id. Gateway and projector compute it independently.
    """
    return hashlib.blake2b(f"{role}\0{of}".encode(), digest_size=8).hexdigest()


def parse_traceparent(text: str) -> TraceParent | None:
    """W3C ``traceparent``; ``None`` for anything that the recommendation calls invalid (section 3.2.2).

    A version above 00 is read by its first four fields, as the recommendation asks.
    """
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace == "0" * 32 or span == "0" * 16:
        return None
    return TraceParent(trace_id=trace, span_id=span, sampled=bool(int(flags, 16) & 1))


def keyed_digest(key: bytes, data: bytes) -> str:
    """``blake2b:`` and 64 hex digits, keyed: a plain hash of a small value could be reversed by trying them all."""
    return "blake2b:" + hashlib.blake2b(data, digest_size=32, key=key).hexdigest()


class KeyedHash:
    """``keyed_digest`` for data that comes in parts."""

    __slots__ = ("_hash",)

    def __init__(self, key: bytes) -> None:
        self._hash = hashlib.blake2b(digest_size=32, key=key)

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def text(self) -> str:
        return "blake2b:" + self._hash.hexdigest()


def sha256_digest(data: bytes) -> str:
    """``sha256:`` and 64 hex digits, for what is not secret (policy texts, tool definitions)."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
