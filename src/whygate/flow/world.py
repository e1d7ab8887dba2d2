"""Ids from the world."""

import os
import time
from typing import Final

from whygate.core import ids

_POOL_IDS: Final = 512
"""Random bytes are fetched for this many ids at once: one system call instead of one for each."""


class RandomIds:
    """UUIDv7 from the wall clock and the operating system's randomness."""

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def new(self) -> str:
        """A fresh id as text."""
        if self._at >= len(self._pool):
            self._pool, self._at = os.urandom(10 * _POOL_IDS), 0
        random = self._pool[self._at : self._at + 10]
        self._at += 10
        return ids.uuid7(time.time_ns() // 1_000_000, random)
