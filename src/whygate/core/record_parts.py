"""What records are made of: the parts that several kinds share, and what all kinds have.

Each declares its fields in the order of their names, which is how a record's bytes are stored (``core.records``).
"""

import datetime
from typing import ClassVar, Final

import msgspec

from whygate.core.identity import Actor
from whygate.core.things import KINDS as BESIDES_TOOLS

VERSION: Final = 1


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A nested object of a record. Defaults are left out of the bytes."""


class Subject(Part, frozen=True, kw_only=True):
    credential: str = ""
    id: str
    issuer: str = ""
    on_behalf_of: tuple[Actor, ...] = ()
    owner: str = ""
    proof: str
    roles: tuple[str, ...] = ()
    type: str


class Action(Part, frozen=True, kw_only=True):
    class_: str = msgspec.field(name="class", default="")
    name: str
    """``tools/call``, ``tools/list``, ``GET`` …"""
    protocol: str


class Resource(Part, frozen=True, kw_only=True):
    asked: str = ""
    """What was asked for, where no such tool is in the catalogue; of a server's question, the host of its page."""
    definition: str = ""
    digest: str = ""
    """Keyed digest of the whole URI, where ``id`` or ``asked`` shows only a part of it."""
    id: str = ""
    """``server/name``, of a resource ``server/uri``; empty where the method names nothing."""
    server: str = ""
    tier: str = ""
    type: str = ""

    @property
    def facet(self) -> str:
        """What decisions about it are searched by. Tools one by one; of resources, prompts and questions, whose names have no
        end, the kind and the server (``resource:docs``).
        """
        return f"{self.type}:{self.server}" if self.type in BESIDES_TOOLS else self.id


class Arguments(Part, frozen=True, kw_only=True):
    digest: str = ""
    """Keyed digest of the arguments as canonical JSON."""


class Claimed(Part, frozen=True, kw_only=True):
    """Correlation as the client sent it: kept for search, believed by nobody."""

    incident: str = ""
    workflow: str = ""


class Link(Part, frozen=True, kw_only=True):
    span_id: str
    trace_id: str


class Context(Part, frozen=True, kw_only=True):
    claimed: Claimed | None = None
    hop: int = 0
    incident: str = ""
    link: Link | None = None
    """A foreign trace that the call came with."""
    parent: str = ""
    """Parent span within ``trace_id``; empty means the task's root."""
    request: str = ""
    """JSON-RPC id."""
    revision: str = ""
    """Protocol revision of the call."""
    session: str = ""
    span_id: str = ""
    task: str = ""
    trace_id: str = ""
    workflow: str = ""


class Reason(Part, frozen=True, kw_only=True):
    admin: str
    code: str
    user: str


class Client(Part, frozen=True, kw_only=True):
    address: str = ""


class PolicyInForce(Part, frozen=True, kw_only=True):
    digest: str = ""


class Repeats(Part, frozen=True, kw_only=True):
    """Refusals of one kind and source that were counted instead of recorded one by one."""

    count: int
    of: str
    """The decision of this kind that was recorded by itself before them; the answers to all of them carried its id."""
    since: datetime.datetime
    until: datetime.datetime


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What all records have. Mutable only so that the ledger can fill in ``seq``, ``time`` and ``writer``."""

    KIND: ClassVar[str] = ""
