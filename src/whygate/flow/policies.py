"""The policy set in force.

Rules of this file:

1. Loading is all or nothing. A set with an error never comes into force; the last good one stays. Both are records.
2. A set's text is kept by its digest before its first decision, so that "which policy said so" has an exact answer.
"""

from collections.abc import Mapping

from whygate.core.ids import sha256_digest
from whygate.core.policy.errors import PolicyErrors
from whygate.core.policy.model import PolicySet
from whygate.core.policy.parse import load
from whygate.core.records import VERSION, PolicyFile, PolicyRecord
from whygate.flow.ports import Ids, Ledger


class Policies:
    """Holds the set in force; the gatekeeper reads ``current`` for each decision."""

    def __init__(self, ledger: Ledger, new_ids: Ids) -> None:
        self._ledger = ledger
        self._ids = new_ids
        self.current: PolicySet | None = None
        """``None`` until the first set is in force: every decision is then ``policy.invalid``."""

    async def bring_into_force(self, texts: Mapping[str, str]) -> PolicySet:
        """Load ``texts`` (file name to text) and make them the set in force, durably.

        Raises ``PolicyErrors`` (recorded; the last good set stays) and ``LedgerUnavailable``.
        """
        try:
            loaded = load(texts)
        except PolicyErrors as refused:
            await self._ledger.append(self._record("refused", "", texts, refused))
            raise
        if self._ledger.policy_in_force() != loaded.digest:
            self._ledger.put_policy(loaded.digest, texts)
            await self._ledger.append(self._record("in_force", loaded.digest, texts))
            # Dying here: the next start finds this digest in force and loads the same or a newer set.
        self.current = loaded
        return loaded

    def _record(
        self, event: str, digest: str, texts: Mapping[str, str], refused: PolicyErrors | None = None
    ) -> PolicyRecord:
        return PolicyRecord(
            digest=digest,
            errors=tuple(str(error) for error in refused.errors[:20]) if refused else (),
            event=event,
            files=tuple(
                PolicyFile(digest=sha256_digest(text.encode()), name=name) for name, text in sorted(texts.items())
            ),
            id=self._ids.new(),
            kind="policy",
            v=VERSION,
        )
