"""Records of what people decide: answers, elevations, exceptions, reviews, the kill switch, and who the people are.

As ``core.records`` says: members in the order of their names, no floats, and no free text from a call. A ``note`` here is a
person's own words, given for the record; it stays out of traces and out of what agents are told.
"""

import datetime
from typing import ClassVar

from whygate.core.approvals import Asked
from whygate.core.exceptions import BreakGlass, Grant, Review, Waiver
from whygate.core.instants import EPOCH
from whygate.core.record_parts import Part, Record, Subject

MAX_NOTE = 500
"""Characters of a person's note."""


class Signature(Part, frozen=True, kw_only=True):
    """A passkey's assertion (WebAuthn level 2, section 6.3.3) over what was shown: checkable with the public key that the
    person's record holds. ``challenge`` is SHA-256 of the nonce and the digest of what was shown.
    """

    authenticator_data: str
    """As all of these: base64url without padding."""
    client_data: str
    credential: str
    nonce: str
    signature: str


class ApprovalRecord(Record, kw_only=True):
    """What happened to a question. The first of them, ``asked``, has the approval's own id."""

    KIND: ClassVar[str] = "approval"

    approval: str
    """The approval's id."""
    asked: Asked | None = None
    """With ``asked``."""
    asked_us: int = 0
    """With what follows it: when it was asked (microseconds since 1970), so that one record tells the whole wait."""
    decision: str = ""
    """The decision that asked."""
    event: str
    """``asked``, or one of ``core.approvals.Event``."""
    id: str
    kind: str
    narrowed: str = ""
    """Keyed digest of the arguments as the approver changed them; empty where nothing was."""
    note: str = ""
    proof: str = ""
    """How whoever answered was proven: ``passkey``, ``oidc``, ``client`` (the agent's own process, where policy trusts it)."""
    scope: str = ""
    """With ``approved``: ``call`` or ``task``."""
    seq: int = 0
    shown_digest: str = ""
    signature: Signature | None = None
    subject: Subject | None = None
    """Who answered; nobody where time ran out."""
    task: str = ""
    time: datetime.datetime = EPOCH
    trace: str = ""
    until_us: int = 0
    uses: int = 0
    v: int
    writer: str = ""


class GrantRecord(Record, kw_only=True):
    """A just-in-time elevation begins or ends. Its uses are the decisions that name it."""

    KIND: ClassVar[str] = "grant"

    arguments: str = ""
    """Keyed digest of the pattern that arguments must fit."""
    event: str
    """``granted``, ``revoked`` or ``expired``."""
    grant: Grant
    id: str
    kind: str
    note: str = ""
    seq: int = 0
    subject: Subject | None = None
    task: str = ""
    time: datetime.datetime = EPOCH
    trace: str = ""
    v: int
    writer: str = ""


class WaiverRecord(Record, kw_only=True):
    KIND: ClassVar[str] = "waiver"

    event: str
    """``added``, ``ended`` or ``expired``."""
    id: str
    kind: str
    note: str = ""
    seq: int = 0
    subject: Subject | None = None
    time: datetime.datetime = EPOCH
    v: int
    waiver: Waiver
    writer: str = ""


class BreakGlassRecord(Record, kw_only=True):
    KIND: ClassVar[str] = "breakglass"

    breakglass: BreakGlass
    event: str
    """``opened``, ``closed`` or ``expired``."""
    id: str
    kind: str
    note: str = ""
    proof: str = ""
    seq: int = 0
    signature: Signature | None = None
    subject: Subject | None = None
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""


class ReviewRecord(Record, kw_only=True):
    KIND: ClassVar[str] = "review"

    event: str
    """``owed`` or ``answered``."""
    finding: str = ""
    """``justified`` or ``not_justified``, when it is answered."""
    id: str
    kind: str
    note: str = ""
    review: Review
    seq: int = 0
    subject: Subject | None = None
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""


class AgentRecord(Record, kw_only=True):
    """The kill switch."""

    KIND: ClassVar[str] = "agent"

    agent: str
    event: str
    """``suspended`` or ``resumed``."""
    id: str
    kind: str
    note: str = ""
    seq: int = 0
    subject: Subject
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""


class Passkey(Part, frozen=True, kw_only=True):
    """A credential that a person enrolled (WebAuthn level 2, section 4)."""

    credential: str
    """Its id; base64url without padding, as the key."""
    label: str = ""
    public_key: str
    """COSE."""
    sign_count: int = 0
    """At enrolment."""


class Person(Part, frozen=True, kw_only=True):
    """Somebody who signs in to the console."""

    groups: tuple[str, ...] = ()
    id: str
    name: str = ""
    passkeys: tuple[Passkey, ...] = ()
    roles: tuple[str, ...] = ()
    """``owner``, ``operator``, ``approver``, ``auditor``, ``breakglass``."""


class PersonRecord(Record, kw_only=True):
    KIND: ClassVar[str] = "person"

    event: str
    """``enrolled`` (with one more passkey), ``changed`` (roles, groups, a passkey less) or ``removed``."""
    id: str
    kind: str
    person: Person
    """As it is from now on."""
    seq: int = 0
    subject: Subject | None = None
    """Who did it."""
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""
