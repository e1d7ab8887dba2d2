"""The operators' listener: tasks, policies, health, metrics.

Rules of this file:

1. Only people and the hosts that the operator named open tasks; an agent never does, whatever its roles: a task's goal
   is what later tells the agent's own wishes from those of the person it works for.
2. The same may look at policies and have them reloaded. A refusal is decided and recorded like one at the edges.
3. What people answer and decide is people's alone: each path says whose (``transport.access``).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from litestar.types import Message, Scope
from pydantic import Field

from whygate import __version__
from whygate.api import agents, approvals, bodies, decisions, exceptions, policies, tools
from whygate.api.acting import Desk
from whygate.api.agents import Listed
from whygate.api.decisions import Records
from whygate.api.document import described
from whygate.api.guard import CALLER, PROBLEM, Guard, Refused, checked, refused, unrecorded
from whygate.console import app as console
from whygate.console.desk import Console
from whygate.core import ids
from whygate.core.calls import TraceParent
from whygate.core.identity import Principal
from whygate.core.instants import from_us
from whygate.flow.approvals import Approvals
from whygate.flow.authority import Authority
from whygate.flow.catalogue import Catalogue
from whygate.flow.elevations import Elevations
from whygate.flow.emergencies import Emergencies
from whygate.flow.ports import Gate, Identifier, LedgerUnavailable
from whygate.flow.reloading import PinReloader, PolicyReloader
from whygate.flow.tasks import DEFAULT_TTL_S, MAX_TTL_S, NewTask, Tasks
from whygate.transport import access

_log = logging.getLogger("whygate.api")

Selector = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$", examples=["role:support"])]
Label = Annotated[str, Field(max_length=128, pattern=r"^[\x21-\x7e]*$")]


class TaskRequest(bodies.Body):
    """A piece of work that somebody opens for one or more agents."""

    agents: list[Selector] = Field(min_length=1, max_length=64, description="Who may use it: ids, or `role:<name>`.")
    goal: str = Field(default="", max_length=65_536, description="What is to be done. Kept as a keyed digest only.")
    workflow: Label = ""
    incident: Label = ""
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S, description="Seconds until it ends."), bodies.WHOLE] = DEFAULT_TTL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators:
    """What the operators' listener works with."""

    identifier: Identifier
    gate: Gate
    tasks: Tasks
    reloader: PolicyReloader
    pins: PinReloader
    catalogue: Catalogue
    authority: Authority
    approvals: Approvals
    elevations: Elevations
    emergencies: Emergencies
    decisions: Records
    inventory: Sequence[Listed]
    console: str
    """Where people answer, without ``/console``."""
    pages: Console | None = None
    """The console itself."""
    metrics: Callable[[], tuple[bytes, str]]
    ready: Callable[[], str]
    """Empty when the gateway can decide and record; else what is missing."""
    task_openers: Sequence[str]
    resource_metadata: str


def create_app(around: Operators) -> Litestar:
    """The ASGI application."""
    guard = Guard(
        identifier=around.identifier,
        gate=around.gate,
        hosts=around.task_openers,
        switched_off=lambda who: who in around.authority.state.suspended,
    )
    may_open = guard.asks("tasks/open", "open tasks", around.tasks.may_open)

    @post("/v1/tasks", status_code=201, summary="Open a task", security=[{"bearer": []}], guards=[may_open])
    async def open_task(request: Request[Any, Any, Any], data: JSONBody[TaskRequest]) -> Response[Any]:
        """Open a task durably; answers its id and the `traceparent` that makes calls part of its trace."""
        opener: Principal = request.state[CALLER]
        if "*" in data.agents:
            raise ValidationException("agents: a task names its agents; '*' is not a name")
        wanted = NewTask(
            agents=tuple(data.agents), goal=data.goal, workflow=data.workflow, incident=data.incident, ttl_s=data.ttl_s
        )
        try:
            task = await around.tasks.open(wanted, opener)
        except LedgerUnavailable:
            raise Refused(unrecorded()) from None
        parent = TraceParent(trace_id=task.trace_id, span_id=ids.span_id("root", task.trace_id))
        body = {
            "id": task.id,
            "trace_id": task.trace_id,
            "traceparent": str(parent),
            "agents": list(task.agents),
            "workflow": task.workflow,
            "incident": task.incident,
            "expires_at": from_us(task.expires_us).isoformat(),
        }
        return Response(body, headers={"traceparent": str(parent)})

    app = Litestar(
        [
            open_task,
            *policies.handlers(guard, around.reloader),
            *tools.handlers(guard, around.pins, around.catalogue),
            *_people(around, guard),
            *_health(around),
            *(console.handlers(around.pages) if around.pages is not None else []),
        ],
        openapi_config=described(TaskRequest, *bodies.ALL),
        exception_handlers={
            HTTPException: _explain,
            RecursionError: lambda request, _: _explain(request, ValidationException("the body is nested too deeply")),
            Refused: lambda _, found: refused(found, around.resource_metadata),
            Exception: _unforeseen,
            **(console.exceptions(around.pages) if around.pages is not None else {}),
        },
        before_send=[_name_methods],
        request_max_body_size=256 * 1024,
        # Our own logging stands; Litestar's would print a trace for every bad request.
        logging_config=None,
    )
    return checked(app)


def _health(around: Operators) -> list[HTTPRouteHandler]:
    """For whoever watches the process; no credential is looked at."""

    @get("/healthz", summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        """Alive; says nothing about the ledger: see `/readyz`."""
        return {"status": "ok", "version": __version__}

    @get("/readyz", summary="Whether calls can be decided and recorded")
    async def readyz() -> Response[dict[str, str]]:
        """503 with what is missing, while nothing would be let through."""
        missing = around.ready()
        return Response(
            {"status": "unavailable", "missing": missing} if missing else {"status": "ready"},
            status_code=503 if missing else 200,
        )

    @get("/metrics", summary="Prometheus metrics", media_type="text/plain")
    async def metrics() -> Response[bytes]:
        """The Prometheus text format."""
        text, content_type = around.metrics()
        return Response(text, media_type=content_type)

    return [healthz, readyz, metrics]


def _people(around: Operators, guard: Guard) -> list[HTTPRouteHandler]:
    """What people decide, and what they look at for it."""
    desk = Desk(guard=guard, authority=around.authority, console=around.console)
    return [
        *approvals.handlers(desk, around.approvals),
        *exceptions.grants(desk, around.elevations),
        *exceptions.waivers(desk, around.emergencies, around.reloader),
        *exceptions.breakglass(desk, around.emergencies),
        *agents.handlers(desk, around.emergencies, around.inventory),
        *decisions.handlers(desk, around.decisions),
    ]


async def _name_methods(message: Message, scope: Scope) -> None:
    """Litestar's own answer to OPTIONS names one handler's methods, where an address has several."""
    if message["type"] == "http.response.start" and scope.get("method") == "OPTIONS":
        allow = ", ".join(sorted({"OPTIONS", *access.methods(access.OPERATORS, "/" + scope["path"].strip("/"))}))
        kept = [(name, value) for name, value in message["headers"] if name.lower() != b"allow"]
        message["headers"] = [*kept, (b"allow", allow.encode())]


def _explain(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """A bad request to this listener: what is wrong, as a problem document."""
    body: dict[str, Any] = {"type": "about:blank", "title": error.detail, "status": error.status_code}
    extra = getattr(error, "extra", None)
    if isinstance(extra, list):
        body["errors"] = [{"key": one.get("key", ""), "message": one.get("message", "")} for one in extra]
    path = "/" + request.url.path.strip("/")
    methods = ", ".join(access.methods(access.OPERATORS, path))
    headers = {"allow": methods} if error.status_code == 405 else {}
    return Response(body, status_code=error.status_code, media_type=PROBLEM, headers=headers)


def _unforeseen(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """What nobody thought of: told to the log, and to the caller only that it was so."""
    _log.error("a request failed in an unforeseen way", exc_info=error)
    body = {"type": "about:blank", "title": "Internal Server Error", "status": 500}
    return Response(body, status_code=500, media_type=PROBLEM)


__all__ = ["Operators", "TaskRequest", "create_app"]
