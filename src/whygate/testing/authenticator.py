"""A passkey in software, and somebody who uses the console with it: for tests, and for the demo's scripted approver.

It signs as a security key would (WebAuthn level 2, sections 6.1 and 6.5), and proves nothing about anybody: its key lies in the
memory of whoever runs it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from webauthn.helpers import bytes_to_base64url, encode_cbor

_CSRF: Final = re.compile(r'name="csrf" value="([^"]+)"')
_PRESENT_AND_VERIFIED: Final = 0x05
_WITH_KEY: Final = 0x40


class Authenticator:
    """One credential, once it is created."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._id = hashlib.sha256(self._point()).digest()
        self.count = 0

    def _point(self) -> bytes:
        numbers = self._key.public_key().public_numbers()
        return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

    def _data(self, name: str, flags: int, more: bytes = b"") -> bytes:
        self.count += 1
        return hashlib.sha256(name.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big") + more

    def _client(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}).encode()

    def create(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """As ``navigator.credentials.create``."""
        point = self._point()
        cose = encode_cbor({1: 2, 3: -7, -1: 1, -2: point[:32], -3: point[32:]})
        credential = bytes(16) + len(self._id).to_bytes(2, "big") + self._id + cose
        data = self._data(options["rp"]["id"], _PRESENT_AND_VERIFIED | _WITH_KEY, credential)
        attested = encode_cbor({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options["challenge"])
        return self._answer({"attestationObject": attested, "clientDataJSON": client})

    def get(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """As ``navigator.credentials.get``."""
        data = self._data(options["rpId"], _PRESENT_AND_VERIFIED)
        client = self._client("webauthn.get", options["challenge"])
        signature = self._key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._answer({"authenticatorData": data, "clientDataJSON": client, "signature": signature})

    def _answer(self, parts: Mapping[str, bytes]) -> dict[str, Any]:
        name = bytes_to_base64url(self._id)
        response = {key: bytes_to_base64url(value) for key, value in parts.items()}
        return {"id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {}}


class Visitor:
    """Somebody at the console, without a browser."""

    def __init__(self, url: str, origin: str = "") -> None:
        """``url``: where the console answers; ``origin``: what browsers call it, where that differs."""
        self.origin = origin or url
        self.key = Authenticator(self.origin)
        host = self.origin.partition("://")[2]
        self.http = httpx.Client(base_url=url, headers={"host": host, "origin": self.origin}, timeout=20)

    def close(self) -> None:
        self.http.close()

    def enrol(self, token: str) -> httpx.Response:
        """Take up an invitation; signed in afterwards."""
        told = self.http.post("/console/enrol/options", data={"token": token}).json()
        said = {"ceremony": told["ceremony"], "response": self.key.create(told["options"])}
        return self.http.post("/console/enrol", data={"token": token, "passkey": json.dumps(said)})

    def sign_in(self) -> httpx.Response:
        told = self.http.post("/console/sign-in/options").json()
        said = {"ceremony": told["ceremony"], "response": self.key.get(told["options"])}
        return self.http.post("/console/sign-in", data={"passkey": json.dumps(said)})

    def csrf(self, path: str = "/console") -> str:
        found = _CSRF.search(self.http.get(path).text)
        return found[1] if found is not None else ""

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of the console's."""
        return self.http.post(path, data={"csrf": self.csrf(), **fields})

    def answer(self, approval: str, shown_digest: str, *, approve: bool = True, **fields: str) -> httpx.Response:
        """Answer a question, signed."""
        whole = {
            "answer": "approve" if approve else "deny",
            "csrf": self.csrf(),
            "scope": "call",
            "shown_digest": shown_digest,
            **fields,
        }
        told = self.http.post(f"/console/approvals/{approval}/options", data=whole).json()
        if "options" not in told:
            return self.http.post(f"/console/approvals/{approval}", data=whole)
        said = {"ceremony": told["ceremony"], "response": self.key.get(told["options"])}
        return self.http.post(
            f"/console/approvals/{approval}", data={**whole, "nonce": told["nonce"], "passkey": json.dumps(said)}
        )
