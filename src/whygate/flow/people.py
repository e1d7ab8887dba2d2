"""Who the people are that answer, run and audit: enrolled by invitation, kept in the ledger like everything else.

Rules of this file:

1. Somebody is who an invitation named; an invitation works once, for a while, and only its hash is kept.
2. What the configuration says of somebody's roles and groups stands before what was recorded.
3. The first owner comes by a link that only whoever started the gateway sees.
"""

import hashlib
import secrets
from collections.abc import Iterable
from typing import Final

import msgspec

from whygate.core.approvals import Answerer
from whygate.core.events import Passkey, Person, PersonRecord
from whygate.core.records import VERSION, Subject
from whygate.flow.authority import Authority

ROLES: Final = ("owner", "operator", "approver", "auditor", "breakglass")
"""``owner`` may do everything but review their own emergencies; ``auditor`` reads and does nothing."""
INVITED_S: Final = 15 * 60
MAX_INVITED: Final = 100


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may become."""

    person: Person
    by: str = ""
    until_us: int


class People:
    """Belongs to the event loop."""

    def __init__(self, authority: Authority, named: Iterable[Person] = ()) -> None:
        """``named``: those of the configuration."""
        self._authority = authority
        self._named = {person.id: person for person in named}
        self._invited: dict[str, Invitation] = {}

    def find(self, identity: str) -> Person | None:
        """Somebody who is enrolled, with the roles and groups that hold."""
        person = self._authority.state.people.get(identity)
        return None if person is None else self._as_named(person)

    def everybody(self) -> list[Person]:
        return [self._as_named(person) for _, person in sorted(self._authority.state.people.items())]

    def with_passkey(self, credential: str) -> tuple[Person, Passkey] | None:
        """Whose passkey this is."""
        for person in self._authority.state.people.values():
            for passkey in person.passkeys:
                if passkey.credential == credential:
                    return self._as_named(person), passkey
        return None

    def has_owner(self) -> bool:
        return any("owner" in person.roles for person in self.everybody())

    def _as_named(self, person: Person) -> Person:
        named = self._named.get(person.id)
        if named is None:
            return person
        return msgspec.structs.replace(person, name=named.name or person.name, roles=named.roles, groups=named.groups)

    # --- invitations ---

    def invite(self, person: Person, by: str = "") -> str:
        """A token for ``person`` to enrol with, once. Whoever has it becomes them."""
        now_us = self._authority.now_us()
        for old in [key for key, each in self._invited.items() if each.until_us <= now_us]:
            del self._invited[old]
        while len(self._invited) >= MAX_INVITED:
            del self._invited[next(iter(self._invited))]
        token = secrets.token_urlsafe(32)
        until_us = now_us + INVITED_S * 1_000_000
        self._invited[_hash(token)] = Invitation(person=person, by=by, until_us=until_us)
        return token

    def invited(self, token: str) -> Invitation | None:
        """What this token is good for now."""
        found = self._invited.get(_hash(token))
        return None if found is None or found.until_us <= self._authority.now_us() else found

    async def enrol(self, token: str, passkey: Passkey, subject: Subject) -> Person | None:
        """Take up an invitation with a first passkey, or one more; ``None`` where it is not good (any more)."""
        invitation = self._invited.pop(_hash(token), None)
        if invitation is None or invitation.until_us <= self._authority.now_us():
            return None
        known = self._authority.state.people.get(invitation.person.id)
        person = invitation.person if known is None else known
        person = msgspec.structs.replace(person, passkeys=(*person.passkeys, passkey))
        await self._record(person, "enrolled", subject)
        return self._as_named(person)

    async def change(self, person: Person, subject: Subject) -> None:
        """Other roles or groups, or a passkey less."""
        await self._record(person, "changed", subject)

    async def remove(self, person: Person, subject: Subject) -> None:
        await self._record(person, "removed", subject)

    async def _record(self, person: Person, event: str, subject: Subject) -> None:
        record = PersonRecord(
            event=event,
            id=self._authority.new_id(),
            kind="person",
            person=person,
            subject=subject,
            v=VERSION,
        )
        await self._authority.commit(record)


def answerer(person: Person) -> Answerer:
    """Somebody as an approval knows them."""
    return Answerer(id=person.id, groups=person.groups, roles=person.roles)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
