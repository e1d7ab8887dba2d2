"""The public keys of an issuer: from a file that is read again when it changes, or from a URL.

Rules of this file:

1. Only asymmetric keys that verify signatures are kept (RFC 8725 section 3.2); the rest of a set is ignored, as RFC 7517
   section 5 asks. An empty set is an answer, too: nobody's signature counts.
2. Whatever callers send, a URL is asked at most once in ``RETRY``, and by one request at a time.
3. A URL that is down leaves the last good keys in force for ``MAX_STALE``; then none are. A file that can't be read
   leaves none: it is on this machine, and whoever took it away meant something by it.
"""

import asyncio
import base64
import binascii
import contextlib
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from whygate.core.strict_json import Unreadable, loads

FILE_EVERY: Final = datetime.timedelta(seconds=1)
"""How often a file is looked at: a stat on each call would cost as much as all the rest of recognising a caller."""
REFRESH: Final = datetime.timedelta(minutes=5)
"""How old the keys of a URL grow: how long a key that was withdrawn may still be believed."""
RETRY: Final = datetime.timedelta(seconds=10)
"""Between two requests for the same keys, after a failure or for a kid that nobody knows."""
MAX_STALE: Final = datetime.timedelta(hours=1)
"""An outage of the issuer that callers do not notice. Longer, and a stolen key that was withdrawn would live too long."""
TIMEOUT_S: Final = 5.0
"""For the whole answer, however slowly it drips."""
MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64
MIN_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""
NEVER: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

_KEY_TYPES: Final = ("RSA", "EC", "OKP")


class Signer(msgspec.Struct, frozen=True):
    """One public key."""

    kid: str
    thumbprint: str
    """RFC 7638: names the key itself, where a ``kid`` may come to mean another."""
    key: RSAKey | ECKey | OKPKey

    def fits(self, algorithm: str) -> bool:
        """Whether the key is meant for ``algorithm``: type, curve, ``use``, ``key_ops`` and ``alg`` agree."""
        try:
            JWSRegistry.algorithms[algorithm].check_key(self.key)
            self.key.check_key_op("verify")
        except JoseError:
            return False
        return True


class KeysUnreadable(Exception):
    """What was read is no set of keys. The message says why, in our own words."""


def parse(raw: bytes) -> dict[str, Signer]:
    """The usable keys of a JWK Set (RFC 7517 section 5) by thumbprint. Raises ``KeysUnreadable``."""
    try:
        keys = loads(raw)["keys"]
    except (Unreadable, KeyError, TypeError):
        raise KeysUnreadable("no JWK Set") from None
    if not isinstance(keys, list):
        raise KeysUnreadable("no JWK Set")
    if len(keys) > MAX_KEYS:
        raise KeysUnreadable(f"more than {MAX_KEYS} keys")
    signers = (_signer(key) for key in keys if isinstance(key, dict))
    return {signer.thumbprint: signer for signer in signers if signer is not None}


def _signer(jwk: dict[str, Any]) -> Signer | None:
    kind = jwk.get("kty")
    if kind not in _KEY_TYPES or (kind == "RSA" and _bits(jwk.get("n")) < MIN_RSA_BITS):
        return None
    if kind == "OKP" and jwk.get("crv") not in ("Ed25519", "Ed448"):
        return None  # X25519 and X448 agree on keys and sign nothing (RFC 8037 section 3.2)
    # A private key does not belong here; if one slipped in, nothing of it is kept.
    public = {name: value for name, value in jwk.items() if name not in {"d", "p", "q", "dp", "dq", "qi", "oth"}}
    try:
        key = JWKRegistry.import_key(public)
        thumbprint = key.thumbprint()
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    kid = jwk.get("kid", "")
    if not isinstance(key, RSAKey | ECKey | OKPKey) or not isinstance(kid, str):
        return None
    return Signer(kid, thumbprint, key)


def _bits(modulus: Any) -> int:
    try:
        return int.from_bytes(base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))).bit_length()
    except (TypeError, ValueError, binascii.Error):
        return 0


class Keys(Protocol):
    """Where an issuer's keys come from."""

    live: Mapping[str, Signer]
    """By thumbprint. What is not in here verifies nothing, and what it verified counts no longer."""
    check_at: datetime.datetime
    """When ``check`` is due."""
    problem: str
    """Why the keys are not as they should be, for operators; empty while all is well."""

    def check(self, now: datetime.datetime) -> None:
        """Bring ``live`` up to date, or begin to. Never waits, never raises."""

    async def find(self, kid: str, algorithm: str, now: datetime.datetime) -> Sequence[Signer]:
        """The keys that may have signed; waits for fresh ones where none is known by that ``kid``."""

    async def close(self) -> None: ...


def pick(live: Mapping[str, Signer], kid: str, algorithm: str) -> list[Signer]:
    """Without a ``kid`` the set must have but one key for the algorithm: trying them all would let a caller choose."""
    fitting = [signer for signer in live.values() if kid in {"", signer.kid} and signer.fits(algorithm)]
    return fitting if kid or len(fitting) == 1 else []


class FileKeys:
    """Keys from a file, for issuers that publish none and for machines that reach nothing."""

    def __init__(self, path: Path) -> None:
        self.live: Mapping[str, Signer] = {}
        self.check_at = NEVER
        self.problem = ""
        self._path = path
        self._seen: tuple[int, ...] = ()

    def check(self, now: datetime.datetime) -> None:
        self.check_at = now + FILE_EVERY
        try:
            status = self._path.stat()
            # The inode too: a file that was moved here keeps its own time, and may have the same length.
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            self.live, self._seen, self.problem = parse(self._read()), seen, ""
        except OSError as error:
            self.live, self._seen, self.problem = {}, (), f"the file of keys can't be read ({type(error).__name__})"
        except KeysUnreadable as error:
            self.live, self._seen, self.problem = {}, (), f"the file of keys holds {error}"

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise KeysUnreadable(f"more than {MAX_BYTES} bytes")
        return raw

    async def find(self, kid: str, algorithm: str, now: datetime.datetime) -> Sequence[Signer]:
        if now >= self.check_at:
            self.check(now)
        return pick(self.live, kid, algorithm)

    async def close(self) -> None:
        """Nothing is held open."""


class UrlKeys:
    """Keys from a URL, fetched in the background while the ones at hand are good enough."""

    def __init__(self, url: str, client: httpx.AsyncClient, *, timeout_s: float = TIMEOUT_S) -> None:
        self.live: Mapping[str, Signer] = {}
        self.check_at = NEVER
        self.problem = ""
        self._url, self._client, self._timeout_s = url, client, timeout_s
        self._good_until = NEVER
        self._asked = NEVER
        self._task: asyncio.Task[None] | None = None

    def check(self, now: datetime.datetime) -> None:
        if now >= self._good_until:
            self.live = {}
        self._begin(now)

    async def find(self, kid: str, algorithm: str, now: datetime.datetime) -> Sequence[Signer]:
        if now >= self.check_at:
            self.check(now)
        found = pick(self.live, kid, algorithm)
        if not found and (task := self._begin(now)) is not None:
            # Shielded: a caller who hangs up must not cancel what the others wait for.
            await asyncio.shield(task)
            found = pick(self.live, kid, algorithm)
        return found

    async def settled(self) -> None:
        """Wait for the request that is under way, if there is one."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _begin(self, now: datetime.datetime) -> asyncio.Task[None] | None:
        """The request under way, or a new one; ``None`` while it is too early for another."""
        if self._task is None and now >= self._asked + RETRY:
            self._asked, self.check_at = now, now + RETRY
            self._task = asyncio.create_task(self._refresh(now))
        return self._task

    async def _refresh(self, now: datetime.datetime) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                self.live = parse(await self._fetch())
            # From the moment of asking: the answer may be older than its arrival, never than the question.
            self.check_at, self._good_until, self.problem = now + REFRESH, now + MAX_STALE, ""
        except KeysUnreadable as error:
            self.problem = f"the keys can't be fetched: {error}"
        except Exception as error:  # noqa: BLE001 - callers wait for this: whatever goes wrong, they are refused, not broken
            self.problem = f"the keys can't be fetched ({type(error).__name__})"
        finally:
            self._task = None

    async def _fetch(self) -> bytes:
        # Redirects are not followed: the operator named the place, and an answer must not choose another (SSRF).
        # Asked for and read uncompressed, so that the cap counts what arrives and no small answer unfolds into a large one.
        headers = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}
        async with self._client.stream("GET", self._url, headers=headers, follow_redirects=False) as response:
            if response.status_code != 200:
                raise KeysUnreadable(f"status {response.status_code}")
            raw = bytearray()
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > MAX_BYTES:
                    raise KeysUnreadable(f"more than {MAX_BYTES} bytes")
            return bytes(raw)
