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
    SIGNED_IN = "people who are signed in"
    """To the console, by their roles there."""
    OPERATORS = "operators"
    """People, and the hosts that ``identities.task_openers`` names; an agent never, whatever its roles. Somebody who is an
    auditor and nothing else reads only; here and below.
    """
    PEOPLE = "people"
    """People who proved themselves by a token, and nobody else."""
    IN_CHARGE = "people in charge"
    """Of these, the owners and operators."""
    EMERGENCY = "people for emergencies"
    """Of these, who has the role ``breakglass``."""


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
            (Who.SIGNED_IN, "/console", ("GET",), "what waits for an answer"),
            (Who.SIGNED_IN, "/console/live", ("GET",), "news for open pages"),
            (Who.SIGNED_IN, "/console/sign-out", ("POST",), "sign out"),
            (Who.SIGNED_IN, "/console/approvals/{identity}", ("GET", "POST"), "one question, and its answer"),
            (Who.SIGNED_IN, "/console/approvals/{identity}/options", ("POST",), "the challenge for signing an answer"),
            (Who.SIGNED_IN, "/console/approvals/{identity}/revoke", ("POST",), "take an agreement back"),
            (Who.SIGNED_IN, "/console/decisions", ("GET",), "decisions"),
            (Who.SIGNED_IN, "/console/decisions/{identity}", ("GET",), "one decision, and why"),
            (Who.SIGNED_IN, "/console/tasks/{identity}", ("GET",), "a task's chain"),
            (Who.SIGNED_IN, "/console/grants", ("GET",), "elevations"),
            (Who.SIGNED_IN, "/console/grants/{identity}/revoke", ("POST",), "end an elevation"),
            (Who.SIGNED_IN, "/console/breakglass", ("GET", "POST"), "break-glass, reviews, waivers"),
            (Who.SIGNED_IN, "/console/breakglass/{identity}/close", ("POST",), "close a break-glass"),
            (Who.SIGNED_IN, "/console/breakglass/{identity}/review", ("POST",), "answer a review"),
            (Who.SIGNED_IN, "/console/waivers", ("POST",), "add a waiver"),
            (Who.SIGNED_IN, "/console/waivers/{identity}/end", ("POST",), "end a waiver"),
            (Who.SIGNED_IN, "/console/agents", ("GET", "POST"), "agents, and the kill switch"),
            (Who.SIGNED_IN, "/console/tools", ("GET",), "tools and pins"),
            (Who.SIGNED_IN, "/console/policies", ("GET",), "policies, their history and hits"),
            (Who.SIGNED_IN, "/console/figures", ("GET",), "how people answer"),
            (Who.SIGNED_IN, "/console/codes", ("GET",), "reason codes"),
            (Who.SIGNED_IN, "/console/people", ("GET", "POST"), "who is who"),
            (Who.SIGNED_IN, "/console/people/remove", ("POST",), "remove somebody"),
        )
    ),
    Row("/v1/approvals", ("GET",), Who.OPERATORS, "questions that wait for people, and answers that can be used"),
    Row(
        "/v1/approvals/{approval}", ("GET",), Who.PEOPLE, "one question; with the arguments for those whom it concerns"
    ),
    Row("/v1/approvals/{approval}", ("POST",), Who.PEOPLE, "answer it; who has a passkey does so in the console"),
    Row("/v1/grants", ("GET",), Who.OPERATORS, "elevations that are in force"),
    Row("/v1/grants/{grant}", ("GET",), Who.OPERATORS, "one of them"),
    Row("/v1/grants/{grant}", ("DELETE",), Who.IN_CHARGE, "end it now"),
    Row("/v1/waivers", ("GET",), Who.OPERATORS, "waivers that are in force"),
    Row("/v1/waivers", ("POST",), Who.IN_CHARGE, "add one"),
    Row("/v1/waivers/{waiver}", ("DELETE",), Who.IN_CHARGE, "end it now, by its name or id"),
    Row("/v1/breakglass", ("GET",), Who.OPERATORS, "break-glass that is open, and reviews that are owed"),
    Row("/v1/breakglass", ("POST",), Who.EMERGENCY, "leads to the console: opening one wants a passkey"),
    Row("/v1/breakglass/{breakglass}/close", ("POST",), Who.PEOPLE, "end it now: its opener, and people in charge"),
    Row("/v1/breakglass/{breakglass}/review", ("POST",), Who.IN_CHARGE, "answer its review; never its opener"),
    Row("/v1/agents", ("GET",), Who.OPERATORS, "the inventory, and who is switched off"),
    Row("/v1/agents/suspend", ("POST",), Who.OPERATORS, "switch an agent off"),
    Row("/v1/agents/resume", ("POST",), Who.IN_CHARGE, "switch it on again"),
    Row("/v1/decisions", ("GET",), Who.OPERATORS, "search decisions, newest first"),
    Row("/v1/decisions/{decision}", ("GET",), Who.OPERATORS, "one decision, and what came of it"),
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


def methods(table: tuple[Row, ...], path: str) -> list[str]:
    """What may be done at an address, by the rows whose template it fits; of those with ``{…:path}`` nothing is told."""
    given = path.split("/")
    return [method for each in table if _fits(each.path.split("/"), given) for method in each.methods]


def _fits(template: list[str], given: list[str]) -> bool:
    pairs = zip(template, given, strict=False)
    return len(template) == len(given) and all(part == one or (part[:1] == "{" and one) for part, one in pairs)
