"""Policies on the operators' listener: what is in force, what was refused, and the command to look again."""

from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler

from whygate.api.guard import CALLER, PROBLEM, Guard, Refused, unrecorded
from whygate.core.ids import sha256_digest
from whygate.core.policy.errors import PolicyError
from whygate.flow.policies import Asked, Cause, Policies, Refusal
from whygate.flow.ports import LedgerUnavailable
from whygate.flow.reloading import PolicyReloader, Reloader, Unsettled

MAX_ERRORS = 200
"""Errors in one answer: `whygate policy check` has them all."""


def handlers(guard: Guard, reloader: PolicyReloader) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""

    @get(
        "/v1/policies",
        summary="The policies in force",
        security=[{"bearer": []}],
        guards=[guard.asks("policies/read", "see policies")],
    )
    async def policies() -> dict[str, Any]:
        """The set in force with its files, and what was refused last where nothing was taken since."""
        held = reloader.held
        return {"in_force": _in_force(held, reloader.loaded_s), "refused": refused(held.refusal)}

    @post(
        "/v1/policies/reload",
        status_code=200,
        summary="Look at the policy folder now",
        security=[{"bearer": []}],
        guards=[guard.asks("policies/reload", "have policies reloaded")],
    )
    async def reload(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        """Bring what the folder holds into force: all of it, or, where anything is wrong with it, nothing (422)."""
        return await reloaded(reloader, request)

    return [policies, reload]


def _in_force(held: Policies, loaded_s: float) -> dict[str, Any] | None:
    current = held.current
    if current is None:
        return None
    return {
        "digest": current.digest,
        "since": held.since.isoformat() if held.since is not None else None,
        "looked_at": int(loaded_s),
        "files": [{"name": name, "digest": sha256_digest(text.encode())} for name, text in current.texts.items()],
        "policies": [
            {
                "id": one.id,
                "version": one.version,
                "owner": one.owner,
                "mode": one.mode.value,
                "file": one.file,
                "rules": len(one.rules),
            }
            for one in current.policies
        ],
    }


def refused(refusal: Refusal | None) -> dict[str, Any] | None:
    """What was refused last, as it is told: errors with their places, the first ``MAX_ERRORS`` of them."""
    if refusal is None:
        return None
    return {"digest": refusal.digest, "at": refusal.at.isoformat(), "errors": _told(refusal.errors)}


async def reloaded(reloader: Reloader[Any], request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """What became of the command to look again: of policies, or of pins."""
    try:
        done = await reloader.reload(Asked(cause=Cause.COMMAND, by=request.state[CALLER]))
    except LedgerUnavailable:
        raise Refused(unrecorded()) from None
    except Unsettled as changing:
        return _problem(409, str(changing), {})
    if done.event == "refused":
        more = {"in_force": done.digest, "errors": _told(done.errors)}
        return _problem(422, f"the {reloader.held.word} were refused; what was in force stays", more)
    return Response({"event": done.event, "in_force": done.digest})


def _told(errors: Sequence[PolicyError]) -> list[dict[str, Any]]:
    return [
        {"file": one.file, "line": one.line, "column": one.column, "message": one.message}
        for one in errors[:MAX_ERRORS]
    ]


def _problem(status: int, title: str, more: dict[str, Any]) -> Response[dict[str, Any]]:
    """A problem document (RFC 9457)."""
    body = {"type": "about:blank", "title": title, "status": status, **more}
    return Response(body, status_code=status, media_type=PROBLEM)
