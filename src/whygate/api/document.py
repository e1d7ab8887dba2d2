"""The OpenAPI document of the operators' listener: Litestar's, with what it leaves out.

It drops the patterns and lengths of items, and knows nothing of refusals that come from guards and exception handlers. So
models are described by pydantic, which also checks them, and answers by the table below.
"""

from typing import Any, Final

from litestar import Request, Response, Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from whygate import __version__
from whygate.api import answers, shapes
from whygate.api.guard import PROBLEM
from whygate.transport import access

_REFS: Final = "#/components/schemas/{model}"
_JSON: Final = "application/json"
_REFUSALS: Final = {
    "400": "The request can't be read, or is not as described.",
    "401": "No credential, or one that is not accepted.",
    "403": "Not for this caller, or asked for by a name that is not ours.",
    "404": "There is none, or not any more.",
    "409": "The folder kept changing.",
    "413": "The body is too large.",
    "422": "The policies were refused; what was in force stays.",
    "429": "A quota of this caller is used up.",
    "503": "It can't be recorded now, so it is not done.",
}
_GUARDED: Final = ("401", "403", "429", "503")
_MADE: Final[dict[tuple[str, str], tuple[str, type[BaseModel], tuple[str, ...]]]] = {
    ("/v1/tasks", "post"): ("201", answers.TaskOpened, ("400", "413")),
    ("/v1/policies", "get"): ("200", answers.PoliciesShown, ()),
    ("/v1/policies/reload", "post"): ("200", answers.Reloaded, ("409", "422")),
    ("/v1/approvals", "get"): ("200", shapes.ApprovalsShown, ()),
    ("/v1/approvals/{approval}", "get"): ("200", shapes.ApprovalShown, ("404",)),
    ("/v1/approvals/{approval}", "post"): ("200", shapes.Approval, ("400", "413")),
    ("/v1/grants", "get"): ("200", shapes.Grants, ()),
    ("/v1/grants/{grant}", "get"): ("200", shapes.Grant, ("404",)),
    ("/v1/grants/{grant}", "delete"): ("200", shapes.Grant, ()),
    ("/v1/waivers", "get"): ("200", shapes.Waivers, ()),
    ("/v1/waivers", "post"): ("201", shapes.Waiver, ("400", "413")),
    ("/v1/waivers/{waiver}", "delete"): ("200", shapes.Waiver, ()),
    ("/v1/breakglass", "get"): ("200", shapes.Emergencies, ()),
    ("/v1/breakglass", "post"): ("200", shapes.Nothing, ("400", "413")),
    ("/v1/breakglass/{breakglass}/close", "post"): ("200", shapes.Review, ()),
    ("/v1/breakglass/{breakglass}/review", "post"): ("200", shapes.Reviewed, ("400", "413")),
    ("/v1/agents", "get"): ("200", shapes.Agents, ()),
    ("/v1/agents/suspend", "post"): ("200", shapes.Switched, ("400", "413")),
    ("/v1/agents/resume", "post"): ("200", shapes.Switched, ("400", "413")),
    ("/v1/decisions", "get"): ("200", shapes.DecisionsFound, ("400",)),
    ("/v1/decisions/{decision}", "get"): ("200", shapes.DecisionTold, ("404",)),
    ("/healthz", "get"): ("200", answers.Health, ()),
    ("/readyz", "get"): ("200", answers.Ready, ()),
}
"""Of each operation: the status and model of its answer, and what refusals it has of its own."""


def described(*requests: type[BaseModel]) -> OpenAPIConfig:
    """The configuration that serves the document. ``requests``: the models of bodies."""
    bearer = SecurityScheme(type="http", scheme="bearer", description="API key or JWT")
    # The document alone: Litestar's pages about it would run scripts from elsewhere at the operators' own address.
    return OpenAPIConfig(
        title="whygate",
        version=__version__,
        components=Components(security_schemes={"bearer": bearer}),
        render_plugins=[_Json(requests), _Yaml(requests)],
        openapi_router=Router("/schema", route_handlers=[], after_request=_no_page, include_in_schema=False),
    )


def completed(document: dict[str, Any], requests: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    """``document`` with models as pydantic has them, and every answer that there is."""
    models: list[type[BaseModel]] = [*requests, answers.Problem, *(model for _, model, _ in _MADE.values())]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REFS)
    components = {**document["components"], "schemas": schemas["$defs"]}
    paths = {
        path: {method: _operation(path, method, operation) for method, operation in item.items()}
        for path, item in document["paths"].items()
    }
    return {**document, "paths": paths, "components": components}


def _operation(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    found = dict(operation["responses"])
    refusals: tuple[str, ...] = ("403",)
    row = access.row(access.OPERATORS, path, method.upper())
    if row is not None and row.who is not access.Who.ANYBODY:
        refusals = _GUARDED
    if (made := _MADE.get((path, method))) is not None:
        status, model, own = made
        found[status] = {**found[status], "content": _content(_JSON, model)}
        refusals += own
    for status in refusals:
        found[status] = {"description": _REFUSALS[status], "content": _content(PROBLEM, answers.Problem)}
    if path == "/readyz":
        found["503"] = {"description": "Not now; what is missing.", "content": _content(_JSON, answers.Ready)}
    return {**operation, "responses": found}


def _content(media: str, model: type[BaseModel]) -> dict[str, Any]:
    return {media: {"schema": {"$ref": _REFS.format(model=model.__name__)}}}


def _no_page(response: Response[Any]) -> Response[Any]:
    """Litestar answers other paths below the document's with a page of its own; here they are not found like all others."""
    if response.status_code != 404:
        return response
    return Response({"type": "about:blank", "title": "Not Found", "status": 404}, status_code=404, media_type=PROBLEM)


class _Json(JsonRenderPlugin):
    def __init__(self, requests: tuple[type[BaseModel], ...]) -> None:
        super().__init__(path=["/", "/openapi.json"])
        self._requests = requests

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, completed(openapi_schema, self._requests))


class _Yaml(YamlRenderPlugin):
    def __init__(self, requests: tuple[type[BaseModel], ...]) -> None:
        super().__init__(path="/openapi.yaml")
        self._requests = requests

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, completed(openapi_schema, self._requests))
