"""Decisions on the operators' listener: searched, and one with what came of it. Records are told as they lie in the ledger."""

import asyncio
from typing import Annotated, Any, Literal, Protocol

import msgspec
from litestar import get
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, QueryParameter

from whygate.api.acting import Desk
from whygate.api.guard import Refused, unrecorded
from whygate.flow.ports import LedgerUnavailable

MAX_PAGE = 200
Known = Literal["permitted", "elevated", "exception", "challenged", "blocked", "error"]
Facet = Annotated[str, QueryParameter(max_length=256)]


class Records(Protocol):
    """The ledger, to look into; from any thread."""

    def search(self, limit: int, before: int, **wanted: str) -> list[bytes]:
        """Decisions, newest first. Raises ``LedgerUnavailable``."""

    def story(self, decision: str) -> list[bytes]:
        """The decision, and the records that point at it; empty where there is none. Raises ``LedgerUnavailable``."""


async def _facets(
    outcome: FromQuery[Known | None] = None, code: Facet = "", agent: Facet = "", tool: Facet = "", task: Facet = ""
) -> dict[str, str]:
    """What is searched for."""
    return {"outcome": outcome or "", "code": code, "agent": agent, "tool": tool, "task": task}


def handlers(desk: Desk, records: Records) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""

    @get(
        "/v1/decisions",
        summary="Search decisions",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("decisions/read", "see decisions")],
        dependencies={"facets": Provide(_facets)},
    )
    async def search_decisions(
        facets: NamedDependency[dict[str, str]],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        before: Annotated[int, QueryParameter(ge=0, le=2**53 - 1)] = 0,
    ) -> dict[str, Any]:
        """Newest first; all that is given must hold. `before` of an answer leads to the next page."""
        try:
            data = await asyncio.to_thread(records.search, limit, before or 2**63 - 1, **facets)
        except LedgerUnavailable:
            raise Refused(unrecorded()) from None
        found = [msgspec.json.decode(each) for each in data]
        return {"decisions": found, "before": found[-1]["seq"] if len(found) == limit else None}

    @get(
        "/v1/decisions/{decision:str}",
        summary="One decision",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("decisions/read", "see decisions")],
    )
    async def one_decision(decision: FromPath[str]) -> dict[str, Any]:
        """Its record, and those that point at it: its end, its question, repeats. By its id or the beginning of one."""
        try:
            data = await asyncio.to_thread(records.story, decision)
        except LedgerUnavailable:
            raise Refused(unrecorded()) from None
        if not data:
            raise NotFoundException("the ledger knows no such decision, or several that begin so")
        first, *rest = map(msgspec.json.decode, data)
        return {"decision": first, "about": rest}

    return [search_decisions, one_decision]
