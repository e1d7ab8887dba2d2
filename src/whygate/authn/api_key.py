"""API keys: ``wg_`` and 43 characters, base64url of 32 random bytes.

Stored as plain SHA-256 of the whole key. A slow hash guards secrets that people choose, by making each guess dear; a key
of 256 random bits can't be guessed at any price, so it would only make every call dear. The same holds for salt. And a
key is looked up by its hash, whose bytes nobody can steer: how long the search takes gives nothing away.
"""

import base64
import hashlib
import re
from typing import Final

PREFIX: Final = "wg_"
"""Lets ``Door`` tell a key from a JWT, and scanners find one that was committed by mistake."""
RANDOM_BYTES: Final = 32
_SHAPE: Final = re.compile(r"wg_[A-Za-z0-9_-]{43}")


def from_random(random: bytes) -> str:
    """The key made of 32 bytes from a cryptographic source (``secrets.token_bytes``)."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes")
    return PREFIX + base64.urlsafe_b64encode(random).rstrip(b"=").decode("ascii")


def stored(key: str) -> str:
    """What the configuration keeps of a key: ``sha256:`` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(key.encode("ascii")).hexdigest()


def has_shape(text: str) -> bool:
    """Whether ``text`` could be a key; says nothing about whose."""
    return _SHAPE.fullmatch(text) is not None
