"""Tools on the operators' listener: how each stands to its pin, and the command to look at the pins again."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler

from whygate.api.guard import Guard
from whygate.api.policies import refused, reloaded
from whygate.flow.catalogue import Catalogue
from whygate.flow.reloading import PinReloader


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
        return {
            "in_force": None if held.current is None else {"digest": held.current.digest},
            "refused": refused(held.refusal),
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
        return await reloaded(pins, request)

    return [tools, reload_pins]
