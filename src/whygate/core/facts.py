"""What ``decide`` may know besides the call and the policy."""

import datetime
from collections.abc import Mapping
from typing import Final

import msgspec

from whygate.core.approvals import Approval
from whygate.core.exceptions import BreakGlass, Grant, Waiver

_NONE: Final[Mapping[str, str]] = {}


class Presented(msgspec.Struct, frozen=True, kw_only=True):
    """The approval that a caller says its call has."""

    approval: Approval | None
    """``None``: there is none, or it is another's."""
    id: str = ""
    same: bool
    """Whether it is about this very call."""


class HeldGrant(msgspec.Struct, frozen=True, kw_only=True):
    """An elevation of the caller."""

    fits: bool
    """Whether it covers this call: its task, its tool, its arguments."""
    grant: Grant


class TaskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The task that a call belongs to. All of it was registered by somebody verified, or derived by us."""

    id: str
    trace_id: str
    root_span_id: str
    workflow: str = ""
    incident: str = ""
    derived: bool = False
    """Nobody opened it: it stands for a caller's session, or for its work between two idle gaps."""
    opened_at: datetime.datetime
    opened_by: str = ""
    expires_at: datetime.datetime | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is not in the call itself."""

    now: datetime.datetime
    """Aware, UTC."""
    task: TaskFacts | None
    """``None`` only where a gate refuses before any task is joined."""
    deployment: str = ""
    """The operator's name for this installation (``prod-eu``)."""
    approvals: tuple[Approval, ...] = ()
    """Those that are about this call: of this caller, tool, definition, task and, unless for a whole task, these arguments."""
    presented: Presented | None = None
    grants: tuple[HeldGrant, ...] = ()
    """The caller's."""
    elevations: tuple[Approval, ...] = ()
    """The caller's requests for elevations."""
    ended: Mapping[str, str] = _NONE
    """The caller's entitlements that it held not long ago: ``revoked`` or ``expired``."""
    waivers: tuple[Waiver, ...] = ()
    breakglass: tuple[BreakGlass, ...] = ()
    suspended: bool = False
    """The caller, or somebody it acts for, is switched off."""
