"""What ``decide`` may know besides the call and the policy."""

import datetime

import msgspec


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
