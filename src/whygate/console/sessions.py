"""Who is signed in. Sessions live here and end with the process: a restart asks everybody to sign in again.

Rules of this file:

1. A session's id is 256 random bits in a cookie that scripts can't read; each sign-in makes a new one.
2. It ends when it is idle, when it is old, and when its person is changed or removed.
3. Each has a token of its own that every form carries (OWASP, "Cross-Site Request Forgery Prevention").
"""

import hmac
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

IDLE_S: Final = 15 * 60
OLD_S: Final = 8 * 3600
MOST: Final = 2000
FRESH_S: Final = 300
"""For what needs a passkey just now."""


class Session(msgspec.Struct, kw_only=True):
    """Somebody who is signed in."""

    key: str
    person: str
    csrf: str
    proof: str
    """``passkey``, or ``oidc``."""
    since_s: float
    seen_s: float
    passkey_s: float
    """When a passkey was last shown."""
    notice: str = ""
    """Told once, on the next page."""
    streams: int = 0

    def fresh(self, now_s: float) -> bool:
        return now_s - self.passkey_s <= FRESH_S


class Sessions:
    """Belongs to the event loop. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}

    def begin(self, person: str, proof: str) -> Session:
        now = self._clock()
        self._sweep(now)
        while len(self._open) >= MOST:
            oldest = min(self._open.values(), key=lambda each: each.seen_s)
            del self._open[oldest.key]
        session = Session(
            key=secrets.token_urlsafe(32),
            person=person,
            csrf=secrets.token_urlsafe(32),
            proof=proof,
            since_s=now,
            seen_s=now,
            passkey_s=now if proof == "passkey" else float("-inf"),
        )
        self._open[session.key] = session
        return session

    def find(self, key: str, *, touch: bool = True) -> Session | None:
        """The session with this id, if it is still good; it counts as used then."""
        session = self._open.get(key)
        now = self._clock()
        if session is None or _over(session, now):
            self._open.pop(key, None)
            return None
        if touch:
            session.seen_s = now
        return session

    def end(self, session: Session) -> None:
        self._open.pop(session.key, None)

    def end_all_of(self, person: str) -> None:
        for session in [each for each in self._open.values() if each.person == person]:
            del self._open[session.key]

    def now(self) -> float:
        return self._clock()

    def _sweep(self, now: float) -> None:
        for session in [each for each in self._open.values() if _over(each, now)]:
            del self._open[session.key]


def _over(session: Session, now: float) -> bool:
    return now - session.seen_s > IDLE_S or now - session.since_s > OLD_S


def same(given: str, wanted: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode(), wanted.encode())


class Attempts:
    """Failed sign-ins by source: each doubles the wait before the next, up to a minute; all together have a bound, too."""

    ALL: Final = "*"
    FREE: Final = 5
    FREE_IN_ALL: Final = 100
    MOST_S: Final = 60.0
    MOST: Final = 10_000

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: dict[str, tuple[int, float]] = {}

    def wait_s(self, source: str) -> float:
        """How long this source has to wait; 0: not at all."""
        return max(self._left(source, self.FREE), self._left(self.ALL, self.FREE_IN_ALL))

    def _left(self, source: str, free: int) -> float:
        count, at = self._failed.get(source, (0, 0.0))
        if count < free:
            return 0.0
        wait = min(2.0 ** min(count - free, 6), self.MOST_S)
        return max(0.0, at + wait - self._clock())

    def failed(self, source: str) -> None:
        now = self._clock()
        for key in (source, self.ALL):
            count, at = self._failed.pop(key, (0, now))
            # A quarter of an hour without a failure forgives.
            self._failed[key] = (1 if now - at > 900 else count + 1, now)
        while len(self._failed) > self.MOST:
            del self._failed[next(iter(self._failed))]

    def succeeded(self, source: str) -> None:
        self._failed.pop(source, None)
