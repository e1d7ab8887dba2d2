"""What a person was shown is kept, but not in clear: AES-256-GCM under the ledger's ``payload`` key, bound to the record's id.

Whoever deletes the row, or the key, has erased it; the record with its digest stays, and proves what it proved.
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES: Final = 12


class Sealing:
    """Implements ``flow.ports.Sealer``."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, identity: str, data: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, identity.encode())

    def open(self, identity: str, body: bytes) -> bytes | None:
        """What was sealed; ``None`` where it was sealed for another record, with another key, or was changed."""
        try:
            return self._cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], identity.encode())
        except (InvalidTag, ValueError):
            return None
