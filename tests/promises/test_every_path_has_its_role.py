"""Every path of both listeners stands in one table with who may use it, and the listeners keep to it.

Everything here goes through real sockets, with every role at every path.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from litestar import Litestar, get
from tests.servers.gateway import Running, billing_tool, running, settings

from whygate.api.guard import checked
from whygate.testing.billing import BillingServer
from whygate.transport import access
from whygate.transport.access import Row, Who

ROLES: Final = {
    "nobody": None,
    "a stranger": "",
    "an agent": "agent:support",
    "an agent with an opener's role": "agent:host",
    "a suspended agent": "agent:suspended",
    "a service that nobody named": "host:other",
    "a named host": "host:runner",
    "a person": "ada@example.com",
    "an auditor": "audit@example.com",
    "an operator": "op@example.com",
    "a person for emergencies": "fire@example.com",
}
"""And the subject of each one's token; a stranger's is signed by a key of its own."""
SHUT: Final = {"policy.explicit_deny", "request.server_unknown", "request.method_unknown"}
PROVEN: Final = {name for name, subject in ROLES.items() if subject}
GIVEN: Final = {"an auditor": "auditor", "an operator": "operator", "a person for emergencies": "breakglass"}
PEOPLE: Final = {"a person", *GIVEN}
FOR: Final = {
    Who.CALLERS: PROVEN,
    Who.OPERATORS: {"a named host", *PEOPLE},
    Who.PEOPLE: PEOPLE,
    Who.IN_CHARGE: {"an operator"},
    Who.EMERGENCY: {"a person for emergencies"},
}
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
ELSEWHERE: Final = (
    "/", "/admin", "/v1", "/v1/", "/v1/tasks/x", "/v2/tasks", "/V1/tasks", "/v1/tasks%2fx", "/api",
    "/console/x", "/consoles", "/docs", "/redoc", "/swagger", "/openapi.json", "/schema/swagger", "/schema/redoc", "/schema/elements",
    "/schema/rapidoc", "/schema/oauth2-redirect.html", "/schema/openapi.yml", "/debug", "/.env", "/static/x", "/favicon.ico",
    "/metrics/x", "/healthz/x", "/readyz/..%2fmetrics", "/.well-known/openid-configuration", "/.well-known/oauth-protected-resources", "/mcpx/up", "/httpx/billing",
)  # fmt: skip


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    tools = {"billing": billing_tool(billing, tmp_path), "up": {"mcp": {"url": "http://127.0.0.1:9/mcp"}}}
    identities = settings(tmp_path, {})["identities"]
    identities["agents"] += [
        {"id": "agent:host", "roles": ["host"]},
        {"id": "host:other", "type": "service_account", "roles": ["cleaner"]},
    ]
    async with running(tmp_path, tools, identities=identities) as made:
        yield made


def _credential(gateway: Running, role: str) -> dict[str, str]:
    subject = ROLES[role]
    if subject is None:
        return {}
    if not subject:
        (value,) = gateway.headers().values()
        return {"authorization": value[:-9] + "AAAAAAAAA"}
    return gateway.headers(subject, roles=[GIVEN[role]] if role in GIVEN else None)


def _address(row: Row) -> str:
    filled = {
        "{approval}": "x",
        "{identity}": "x",
        "{name}": "console.css",
        "{grant}": "x",
        "{waiver}": "x",
        "{breakglass}": "x",
        "{decision}": "x",
        "{server}": "up",
        "{tool}": "billing",
        "{rest:path}": "invoices/1042",
    }
    path = row.path
    for name, value in filled.items():
        path = path.replace(name, value)
    return path


def _expected(row: Row, role: str, method: str) -> tuple[int, str] | None:
    """Status and reason of the refusal; ``None`` where the door is passed."""
    if row.who is Who.ANYBODY:
        return None
    if role not in PROVEN:
        return 401, "agent.unauthenticated"
    if role == "a suspended agent":
        return 403, "agent.suspended"
    reads = method == "GET" or row.who is Who.CALLERS
    if role in FOR[row.who] and (reads or role != "an auditor"):
        return None
    return 403, "policy.explicit_deny"


async def _found(client: httpx.AsyncClient, gateway: Running, row: Row, base: str, role: str) -> list[str]:
    """What is not as the table says."""
    wrong = []
    for method in row.methods:
        body: dict[str, Any] = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
        answer = await client.request(method, base + _address(row), headers=_credential(gateway, role), **body)
        if row.who is Who.SIGNED_IN:
            # A token is no session: people sign in with a passkey, and nobody else does.
            if answer.status_code != 303 or not answer.headers["location"].startswith("/console/sign-in"):
                wrong.append(f"{method} {row.path} for {role}: {answer.status_code}")
            continue
        expected = _expected(row, role, method)
        reason = answer.headers.get("whygate-reason", "")
        where = f"{method} {row.path} for {role}: {answer.status_code} {reason}"
        if expected is None:
            if answer.status_code == 401 or reason.startswith("agent.") or reason in SHUT:
                wrong.append(where)
            continue
        mcp = row.path.startswith("/mcp") and expected[0] != 401
        if reason != expected[1] or (answer.status_code != expected[0] and not mcp):
            wrong.append(f"{where}, not {expected}")
        elif gateway.decision(answer)["reason"]["code"] != expected[1]:
            wrong.append(f"{where}: another record")
    return wrong


@pytest.mark.parametrize("role", ROLES)
async def test_every_row_answers_every_role_as_it_says(gateway: Running, role: str) -> None:
    """Whoever a path is for gets past the door; everybody else is refused with a reason, and recorded."""
    wrong: list[str] = []
    async with httpx.AsyncClient() as client:
        for table, base in ((access.AGENTS, gateway.url), (access.OPERATORS, gateway.operators_url)):
            for row in table:
                wrong += await _found(client, gateway, row, base, role)
    assert "\n".join(wrong) == ""


async def test_every_path_of_the_openapi_document_has_its_row(gateway: Running) -> None:
    """Document and table name the same paths and methods, and say alike which need a credential."""
    async with httpx.AsyncClient() as client:
        document = (await client.get(f"{gateway.operators_url}/schema/openapi.json")).json()
    described = {
        (path, method.upper()): bool(operation.get("security"))
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    rows = {
        (row.path, method): row.who is not Who.ANYBODY
        for row in access.OPERATORS
        if not row.path.startswith(("/schema", "/console"))  # not itself, and no pages
        for method in row.methods
    }
    assert described == rows


async def test_nothing_answers_that_has_no_row(gateway: Running) -> None:
    """Other paths, the other listener's paths, and other methods: refused with a problem document, whoever asks."""
    open_ = []
    async with httpx.AsyncClient() as client:
        for table, other, base in (
            (access.AGENTS, access.OPERATORS, gateway.url),
            (access.OPERATORS, access.AGENTS, gateway.operators_url),
        ):
            probes = [(path, method) for path in ELSEWHERE for method in ("GET", "POST")]
            probes += [(_address(row), method) for row in other for method in row.methods]
            there = {(_address(row), method) for row in table for method in row.methods}
            addresses = {_address(row) for row in table}
            probes += [(each, method) for each in addresses for method in METHODS if (each, method) not in there]
            for path, method in probes:
                for role in ("nobody", "an agent", "a person"):
                    answer = await client.request(method, base + path, headers=_credential(gateway, role))
                    if table is access.OPERATORS and method == "OPTIONS":
                        # Names the methods of a path, and does nothing.
                        assert (answer.status_code, answer.content) == (204, b"")
                    elif not _refused(answer, method, nobody=role == "nobody"):
                        open_.append(f"{method} {base}{path} for {role}: {answer.status_code} {answer.text[:80]}")
                    elif base == gateway.url:
                        gateway.decision(answer)
    assert "\n".join(open_) == ""


def _refused(answer: httpx.Response, method: str, *, nobody: bool) -> bool:
    if answer.status_code not in ((401, 404, 405) if nobody else (404, 405)):
        return False
    if answer.status_code == 405 and "allow" not in answer.headers:
        return False
    kind = answer.headers.get("content-type", "")
    return method == "HEAD" or kind in ("application/problem+json", "application/json")


def test_an_application_with_a_path_that_nobody_thought_of_is_not_built() -> None:
    """Nor one whose handler is open where the row says who may come."""

    @get("/new", guards=[lambda *_: None])
    async def new() -> str:
        return ""

    @get("/v1/policies")
    async def unguarded() -> str:
        return ""

    for handler, told in ((new, "no row"), (unguarded, "is for operators")):
        with pytest.raises(LookupError, match=told):
            checked(Litestar([handler], openapi_config=None))
