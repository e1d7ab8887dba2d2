"""The console as a part of the operators' application: its handlers, and what becomes of errors in it."""

from typing import Any

from litestar import Response
from litestar.handlers import HTTPRouteHandler

from whygate.console import acting, inbox, live, reading, signing_in
from whygate.console.desk import Console, Elsewhere, NotForYou, Web, moved
from whygate.flow.ports import LedgerUnavailable
from whygate.transport.refusals import status_of


def handlers(console: Console) -> list[HTTPRouteHandler]:
    """Every page of it."""
    made: list[HTTPRouteHandler] = []
    for part in (signing_in, inbox, reading, acting, live):
        made += part.handlers(console)
    return made


def exceptions(console: Console) -> dict[int | type[Exception], Any]:
    """For the application: what becomes of what handlers raise."""

    def not_for_you(request: Web, found: NotForYou) -> Response[Any]:
        if request.url.path.endswith("/options"):
            return Response({"error": found.note}, status_code=status_of(found.code))
        title = "Not possible"
        return console.page(request, "error.html", status_of(found.code), title=title, error=found.note)

    def unavailable(request: Web, _: LedgerUnavailable) -> Response[str]:
        note = "The ledger can't be written or read now, so nothing was done."
        return console.page(request, "error.html", 503, title="Not now", error=note)

    return {
        Elsewhere: lambda _, found: moved(found.path),
        NotForYou: not_for_you,
        LedgerUnavailable: unavailable,
    }
