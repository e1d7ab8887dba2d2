"""Tools on the operators' listener: how each stands to its pin, and the command to look at the pins again."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler

from whygate.api.guard import CALLER, Guard, Refused, unrecorded
from whygate.api.policies import problem, told
from whygate.flow.catalogue import Catalogue
from whygate.flow.policies import Asked, Cause
from whygate.flow.ports import LedgerUnavailable
from whygate.flow.reloading import PinReloader, Unsettled


def handlers(guard: Guard, pins: PinReloader, catalogue: Catalogue) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""

    @get(
        "/v1/tools",
        summary="The tools, and how each stands to its pin",
        security=[{"bearer": []}],
        guards=[guard.asks("tools/read", "see tools")],
    )
    async def tools() -> dict[str, Any]:
        """Every tool that the operator, a pin or its server mentions, and pins that were refused last."""
        held = pins.held
        refusal = held.refusal
        return {
            "in_force": None if held.current is None else {"digest": held.current.digest},
            "refused": None
            if refusal is None
            else {"digest": refusal.digest, "at": refusal.at.isoformat(), "errors": told(refusal.errors)},
            "tools": [
                {
                    "id": tool.id,
                    "standing": tool.standing.value,
                    "definition": tool.definition,
                    "class": tool.tool_class.value if tool.tool_class is not None else "",
                    "tier": tool.tier.value,
                    "labels": list(tool.labels),
                }
                for tool in catalogue.known()
            ],
            "new": catalogue.new(),
        }

    @post(
        "/v1/tools/reload",
        status_code=200,
        summary="Look at the folder of pins now",
        security=[{"bearer": []}],
        guards=[guard.asks("tools/reload", "have pins reloaded")],
    )
    async def reload_pins(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        """Bring what the folder holds into force: all of it, or, where anything is wrong with it, nothing (422)."""
        try:
            done = await pins.reload(Asked(cause=Cause.COMMAND, by=request.state[CALLER]))
        except LedgerUnavailable:
            raise Refused(unrecorded()) from None
        except Unsettled as changing:
            return problem(409, str(changing), {})
        if done.event == "refused":
            more = {"in_force": done.digest, "errors": told(done.errors)}
            return problem(422, "the pins were refused; what was in force stays", more)
        return Response({"event": done.event, "in_force": done.digest})

    return [tools, reload_pins]
