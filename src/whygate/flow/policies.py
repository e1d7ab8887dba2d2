"""The policy set in force.

Rules of this file:

1. Loading is all or nothing. A set with an error never comes into force; the last good one stays. Both are records.
2. A set's text is kept by its digest before its first decision, so that "which policy said so" has an exact answer.
3. A set that was refused is recorded once, not at every look at it: until another one comes into force.
4. The swap is one assignment, after the record is durable. Calls that were decided by the set before it fail in their
   commit by their claim, and are decided again.
"""

import datetime
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from whygate.core.identity import Principal
from whygate.core.ids import sha256_digest
from whygate.core.policy.errors import PolicyError, PolicyErrors
from whygate.core.policy.model import PolicySet, digest_of
from whygate.core.policy.parse import load
from whygate.core.records import VERSION, PolicyFile, PolicyRecord
from whygate.flow.ports import Ids, Ledger
from whygate.flow.subjects import subject_of

MAX_ERRORS: Final = 20
"""Errors that a record holds: whoever has more mends the first and asks `whygate policy check`."""
MAX_ERROR: Final = 300
"""Characters of each of them."""
MAX_NAMED_BYTES: Final = 24_000
"""What a record spends on naming files: some two hundred. It has to fit into 64 KiB with the errors; the set's digest and
its kept texts name them all."""
MAX_REFUSED: Final = 256
"""Refused sets that are remembered. Above it, one is recorded twice."""


class Cause(StrEnum):
    """What made the gateway look at the policies."""

    START = "start"
    FOLDER = "folder"
    SIGNAL = "signal"
    COMMAND = "command"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Why the policies are looked at, and who asked for it where somebody did."""

    cause: Cause
    by: Principal | None = None


AT_START: Final = Asked(cause=Cause.START)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A set that did not come into force."""

    key: str
    """Its digest, or that of what was wrong where it could not even be read."""
    digest: str
    """Empty where it could not be read."""
    errors: tuple[PolicyError, ...]
    at: datetime.datetime
    """Time of its record."""


Check = Callable[[PolicySet], None]
"""Raises ``PolicyErrors`` for a set that can't be right for the tools that there are."""


def counted(policy: PolicySet | None) -> str:
    """``2 policies, 9 rules, sha256:0123456789ab``."""
    if policy is None:
        return "none"
    many = len(policy.policies)
    rules = sum(len(one.rules) for one in policy.policies)
    return f"{many} polic{'y' if many == 1 else 'ies'}, {rules} rule{'' if rules == 1 else 's'}, {policy.digest[:19]}"


class Policies:
    """Holds the set in force; the gatekeeper reads ``current`` for each decision. Belongs to the event loop."""

    word = "policies"

    def __init__(self, ledger: Ledger, new_ids: Ids, check: Check | None = None) -> None:
        """``check`` is asked about every set before it comes into force, in threads: see ``load``."""
        self._ledger = ledger
        self._ids = new_ids
        self._check = check
        self._recorded: dict[str, Refusal] = {}
        self.current: PolicySet | None = None
        """``None`` until the first set is in force: every decision is then ``policy.invalid``."""
        self.since: datetime.datetime | None = None
        """Time of the record that brought it into force; ``None`` where that was before this start of the gateway."""
        self.refusal: Refusal | None = None
        """What was refused last, where nothing was taken after it."""

    async def bring_into_force(self, texts: Mapping[str, str], asked: Asked = AT_START) -> PolicySet:
        """Load ``texts`` (file name to text) and make them the set in force, durably.

        Raises ``PolicyErrors`` (recorded; the last good set stays) and ``LedgerUnavailable``.
        """
        try:
            loaded = self.load(texts)
        except PolicyErrors as refused:
            await self.refuse(refused, texts, asked)
            raise
        await self.put(loaded, asked)
        return loaded

    def load(self, texts: Mapping[str, str]) -> PolicySet:
        """The set, where nothing is wrong with it as a set, nor beside the tools that there are. Raises ``PolicyErrors``."""
        loaded = load(texts)
        if self._check is not None:
            self._check(loaded)
        return loaded

    digest_of = staticmethod(digest_of)

    async def put(self, loaded: PolicySet, asked: Asked) -> None:
        """Make a set that was loaded the one in force, durably. Raises ``LedgerUnavailable``.

        Not to be cancelled between the record and the swap: every permission would then fail its claim.
        """
        if self._ledger.policy_in_force() != loaded.digest:
            self._ledger.put_policy(loaded.digest, loaded.texts)
            record = self._record("in_force", loaded.digest, loaded.texts, asked)
            await self._ledger.append(record)
            # Dying here: the next start finds this digest in force and loads the same or a newer set.
            self._recorded.clear()
            self.since = record.time
        self.current = loaded
        self.refusal = None

    async def refuse(self, refused: PolicyErrors, texts: Mapping[str, str], asked: Asked) -> None:
        """Record a set that can't come into force, once. ``texts`` are empty where it could not be read.

        Raises ``LedgerUnavailable``.
        """
        digest = digest_of(texts) if texts else ""
        key = digest or sha256_digest(str(refused).encode())
        known = self._recorded.get(key)
        if known is None:
            # The digest stays empty: what names a set in a record is a set that was in force.
            record = self._record("refused", "", texts, asked, refused.errors[:MAX_ERRORS])
            await self._ledger.append(record)
            known = Refusal(key=key, digest=digest, errors=refused.errors, at=record.time)
            if len(self._recorded) >= MAX_REFUSED:
                self._recorded.clear()
            self._recorded[key] = known
        self.refusal = known

    def refused_before(self, digest: str) -> Refusal | None:
        """What was wrong with the set of this digest, where it was refused since the last one came into force."""
        return self._recorded.get(digest)

    def forget_refusals(self) -> None:
        """What a set was refused for may hold no longer: it is looked at again."""
        self._recorded.clear()

    def take_up(self, texts: Mapping[str, str]) -> bool:
        """Go on with the set that the ledger says is in force, from its kept ``texts``; whether they are that set.

        Raises ``PolicyErrors`` where this version can't load it.
        """
        if not texts or digest_of(texts) != self._ledger.policy_in_force():
            return False
        self.current = load(texts)
        return True

    counted = staticmethod(counted)

    def _record(
        self, event: str, digest: str, texts: Mapping[str, str], asked: Asked, errors: tuple[PolicyError, ...] = ()
    ) -> PolicyRecord:
        return PolicyRecord(
            cause=asked.cause.value,
            digest=digest,
            errors=tuple(str(error)[:MAX_ERROR] for error in errors),
            event=event,
            files=named(texts),
            id=self._ids.new(),
            kind="policy",
            subject=subject_of(asked.by) if asked.by is not None else None,
            v=VERSION,
        )


def named(texts: Mapping[str, str]) -> tuple[PolicyFile, ...]:
    """Files and their digests, as a record names them."""
    files, left = [], MAX_NAMED_BYTES
    for name, text in sorted(texts.items()):
        left -= len(name.encode()) + 100
        if left < 0:
            break
        files.append(PolicyFile(digest=sha256_digest(text.encode()), name=name))
    return tuple(files)
