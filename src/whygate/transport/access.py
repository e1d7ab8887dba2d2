"""Who may do what at which path: the one table of both listeners.

Rules of this file:

1. A path that has no row is not answered: the agents' listener refuses it as a tool that does not exist, and the operators'
   application is not built with it (``api.guard.checked``).
2. A row says who gets past the door. What an agent may then do is its policy's to say, call by call.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class Who(StrEnum):
    """Whom a path answers; everybody else is refused, recorded and told why."""

    ANYBODY = "anybody"
    """No credential is looked at, and nothing is recorded."""
    CALLERS = "callers"
    """Whoever proves to be a principal and is neither suspended nor retired."""
    PEOPLE = "people"
    """Whoever is signed in to the console, by their roles."""
    OPERATORS = "operators"
    """People, and the hosts that ``identities.task_openers`` names; an agent never, whatever its roles."""


class Row(NamedTuple):
    path: str
    """A template: ``{…}`` stands for one segment, ``{…:path}`` for the rest."""
    methods: tuple[str, ...]
    who: Who
    what: str
    """For the documentation."""


AGENTS: Final = (
    Row("/mcp", ("POST", "GET", "DELETE"), Who.CALLERS, "the tools of all MCP servers"),
    Row("/mcp/{server}", ("POST", "GET", "DELETE"), Who.CALLERS, "one MCP server"),
    Row(
        "/http/{tool}/{rest:path}", ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), Who.CALLERS, "a plain HTTP tool"
    ),
    Row(
        "/.well-known/oauth-protected-resource", ("GET",), Who.ANYBODY, "who issues tokens for this gateway (RFC 9728)"
    ),
    Row("/.well-known/oauth-protected-resource/{rest:path}", ("GET",), Who.ANYBODY, "the same for one address"),
)
"""The listener that agents reach."""
OPERATORS: Final = (
    Row("/v1/tasks", ("POST",), Who.OPERATORS, "open a task"),
    Row("/v1/policies", ("GET",), Who.OPERATORS, "the policies in force, and what was refused last"),
    Row("/v1/policies/reload", ("POST",), Who.OPERATORS, "look at the policy folder now"),
    Row(
        "/v1/tools",
        ("GET",),
        Who.OPERATORS,
        "the tools, and how each stands to its pin",
    ),
    Row("/v1/tools/reload", ("POST",), Who.OPERATORS, "look at the folder of pins now"),
    *(
        Row(path, methods, who, what)
        for who, path, methods, what in (
            (Who.ANYBODY, "/console/sign-in", ("GET", "POST"), "sign in to the console"),
            (Who.ANYBODY, "/console/sign-in/options", ("POST",), "the challenge for a passkey"),
            (Who.ANYBODY, "/console/enrol", ("GET", "POST"), "enrol with a one-time link"),
            (Who.ANYBODY, "/console/enrol/options", ("POST",), "the challenge for a new passkey"),
            (Who.ANYBODY, "/console/static/{name}", ("GET",), "what pages look like"),
            (Who.PEOPLE, "/console", ("GET",), "what waits for an answer"),
            (Who.PEOPLE, "/console/live", ("GET",), "news for open pages"),
            (Who.PEOPLE, "/console/sign-out", ("POST",), "sign out"),
            (Who.PEOPLE, "/console/approvals/{identity}", ("GET", "POST"), "one question, and its answer"),
            (Who.PEOPLE, "/console/approvals/{identity}/options", ("POST",), "the challenge for signing an answer"),
            (Who.PEOPLE, "/console/approvals/{identity}/revoke", ("POST",), "take an agreement back"),
            (Who.PEOPLE, "/console/decisions", ("GET",), "decisions"),
            (Who.PEOPLE, "/console/decisions/{identity}", ("GET",), "one decision, and why"),
            (Who.PEOPLE, "/console/tasks/{identity}", ("GET",), "a task's chain"),
            (Who.PEOPLE, "/console/grants", ("GET",), "elevations"),
            (Who.PEOPLE, "/console/grants/{identity}/revoke", ("POST",), "end an elevation"),
            (Who.PEOPLE, "/console/breakglass", ("GET", "POST"), "break-glass, reviews, waivers"),
            (Who.PEOPLE, "/console/breakglass/{identity}/close", ("POST",), "close a break-glass"),
            (Who.PEOPLE, "/console/breakglass/{identity}/review", ("POST",), "answer a review"),
            (Who.PEOPLE, "/console/waivers", ("POST",), "add a waiver"),
            (Who.PEOPLE, "/console/waivers/{identity}/end", ("POST",), "end a waiver"),
            (Who.PEOPLE, "/console/agents", ("GET", "POST"), "agents, and the kill switch"),
            (Who.PEOPLE, "/console/tools", ("GET",), "tools and pins"),
            (Who.PEOPLE, "/console/policies", ("GET",), "policies, their history and hits"),
            (Who.PEOPLE, "/console/codes", ("GET",), "reason codes"),
            (Who.PEOPLE, "/console/people", ("GET", "POST"), "who is who"),
            (Who.PEOPLE, "/console/people/remove", ("POST",), "remove somebody"),
        )
    ),
    Row("/healthz", ("GET",), Who.ANYBODY, "whether the process answers"),
    Row("/readyz", ("GET",), Who.ANYBODY, "whether calls can be decided and recorded"),
    Row("/metrics", ("GET",), Who.ANYBODY, "Prometheus metrics"),
    Row("/schema", ("GET",), Who.ANYBODY, "this listener's OpenAPI document"),
    Row("/schema/openapi.json", ("GET",), Who.ANYBODY, "the same"),
    Row("/schema/openapi.yaml", ("GET",), Who.ANYBODY, "the same, as YAML"),
)
"""The listener of operators and of their monitoring. Names that are not ours are refused before it (``origin.KnownHosts``)."""


def row(table: tuple[Row, ...], path: str, method: str) -> Row | None:
    """The row of a path as a template, and a method; ``None`` where there is none."""
    return next((each for each in table if each.path == path and method in each.methods), None)
