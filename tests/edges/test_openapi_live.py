"""Operations of an OpenAPI document through a real gateway: rules see numbers, the tool gets the bytes."""

import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.servers.gateway import Running, billing_tool, running, settings
from typer.testing import CliRunner

from whygate.cli.tools import app as tools_command
from whygate.config import ConfigError, from_mapping, weaknesses
from whygate.testing.billing import BillingServer
from whygate.wiring import Gateway

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
TOOLS, API = [
    block
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if "paths" in block or "openapi:" in block
]
RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: few
    tools: [billing/invoice_list]
    when: '!has(args.limit) || type(args.limit) == int && args.limit <= 50'
    permit: {}
    why: Few at a time.
  - id: ours
    tools: [billing/refund]
    when: args.number == 1042 && args.amount_cents <= 10000
    permit: {}
    why: Small refunds of this one invoice.
"""


def documented(folder: Path, billing: BillingServer, **more: Any) -> dict[str, Any]:
    """The page's example, with the test's server behind it."""
    (folder / "billing.yaml").write_text(API)
    tool: dict[str, Any] = yaml.safe_load(TOOLS)["tools"]["billing"]
    http = billing_tool(billing, folder)["http"] | {"openapi": str(folder / "billing.yaml")}
    return {"billing": tool | {"http": http} | more}


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    async with running(tmp_path, documented(tmp_path, billing), policies=str(tmp_path / "policies")) as made:
        yield made


async def test_rules_compare_numbers_that_came_as_text(gateway: Running, billing: BillingServer) -> None:
    """Permitted up to the bound, refused above it; the tool gets path and query as they were sent."""
    async with httpx.AsyncClient(headers=gateway.headers(), base_url=f"{gateway.url}/http/billing") as client:
        few = await client.get("/invoices?limit=50&status=open&status=paid")
        many = await client.get("/invoices?limit=51")
    assert (few.headers["whygate-reason"], many.headers["whygate-reason"]) == ("role.permitted", "policy.no_match")
    assert [one["path"] for one in billing.seen] == ["/invoices?limit=50&status=open&status=paid"]
    record = gateway.decision(few)["resource"]
    assert (record["id"], record["tier"]) == ("billing/invoice_list", "low")
    assert record["definition"].startswith("sha256:")


async def test_the_bytes_that_were_typed_are_the_bytes_that_are_forwarded(
    gateway: Running, billing: BillingServer
) -> None:
    """Path parameter and body are read as numbers, and nothing of them is written anew."""
    body = b'{ "amount_cents" :4500,\t"note":"\\u00fc" }'
    headers = gateway.headers() | {"content-type": "application/json"}
    async with httpx.AsyncClient(headers=headers, base_url=f"{gateway.url}/http/billing") as client:
        ours = await client.post("/invoices/1042/refunds", content=body)
        other = await client.post("/invoices/1043/refunds", content=body)
    assert ours.headers["whygate-reason"] == "role.permitted"
    assert gateway.decision(ours)["action"]["class"] == "spend"
    assert other.headers["whygate-reason"] == "policy.no_match"
    assert [(one["path"], one["body"]) for one in billing.seen] == [("/invoices/1042/refunds", body)]


async def test_what_is_not_as_declared_is_refused_without_its_value(gateway: Running, billing: BillingServer) -> None:
    """422, and a note for operators that names place and keyword; neither value nor made-up names are written down."""
    headers = gateway.headers()
    async with httpx.AsyncClient(headers=headers, base_url=f"{gateway.url}/http/billing") as client:
        answers = {
            "body amount_cents: minimum": await client.post("/invoices/1042/refunds", json={"amount_cents": -77777}),
            "body: not declared": await client.post(
                "/invoices/1042/refunds", json={"amount_cents": 1, "hunter2secret": 77777}
            ),
            "query limit: type": await client.get("/invoices?limit=77777x"),
            "path number: type": await client.post("/invoices/77777x/refunds", json={"amount_cents": 1}),
            "query: not declared": await client.get("/invoices?hunter2secret=1"),
        }
    for note, answer in answers.items():
        assert (answer.status_code, answer.json()["code"]) == (422, "args.schema_invalid")
        assert note in gateway.decision(answer)["reason"]["admin"]
        assert "77777" not in answer.text
    assert "77777" not in str(gateway.records())
    assert "hunter2secret" not in str(gateway.records())
    assert billing.seen == []


async def test_an_operation_that_was_left_out_is_told_and_not_there(
    tmp_path: Path, billing: BillingServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The start says which and why; to agents it is an operation that does not exist."""
    tools = documented(tmp_path, billing)
    tree = yaml.safe_load(API)
    tree["paths"]["/odd"] = {"get": {"operationId": "odd", "parameters": [{"name": "a", "in": "query", "style": "x"}]}}
    (tmp_path / "billing.yaml").write_text(json.dumps(tree))
    with caplog.at_level(logging.WARNING):
        async with running(tmp_path, tools) as gateway, httpx.AsyncClient(headers=gateway.headers()) as client:
            answer = await client.get(f"{gateway.url}/http/billing/odd?a=1")
    assert "tools.billing.http.openapi: left out, so not to be called: GET /odd: the parameter a" in caplog.text
    assert (answer.status_code, answer.json()["code"]) == (404, "tool.unknown")


async def test_operations_of_the_configuration_stand_beside_it(tmp_path: Path, billing: BillingServer) -> None:
    """One that the document lacks is untyped as ever; one that it has keeps the document's types."""
    own = [
        {"name": "invoice_get", "method": "GET", "path": "/invoices/{invoice_id}", "class": "read", "tier": "low"},
        {"name": "invoice_list", "method": "GET", "path": "/invoices", "class": "read", "tier": "medium"},
    ]
    tools = documented(tmp_path, billing, operations=own)
    async with running(tmp_path, tools) as gateway, httpx.AsyncClient(headers=gateway.headers()) as client:
        untyped = await client.get(f"{gateway.url}/http/billing/invoices/1042")
        typed = await client.get(f"{gateway.url}/http/billing/invoices?limit=x")
        assert gateway.gateway.catalogue.by_id("billing/invoice_list").tier == "medium"
    assert untyped.status_code == 200
    assert typed.json()["code"] == "args.schema_invalid"


def test_a_document_that_can_not_be_used_starts_nothing(tmp_path: Path, billing: BillingServer) -> None:
    """It is a mistake of the configuration, with its key and the file."""
    tools = documented(tmp_path, billing)
    (tmp_path / "billing.yaml").write_text("swagger: '2.0'")
    with pytest.raises(ConfigError) as caught:
        Gateway(from_mapping(settings(tmp_path, tools)))
    (problem,) = caught.value.problems
    assert problem.key == "tools.billing.http.openapi"
    assert "billing.yaml: is no OpenAPI document" in problem.what


def test_classification_by_name_goes_with_a_document(tmp_path: Path, billing: BillingServer) -> None:
    """``tools`` without one is refused as before; a document of which nothing is classified is weak."""
    tools = documented(tmp_path, billing)
    assert not [line for line in weaknesses(from_mapping(settings(tmp_path, tools))) if "tools.billing" in line]
    del tools["billing"]["tools"]
    assert "none of its operations is classified" in str(weaknesses(from_mapping(settings(tmp_path, tools))))
    tools = documented(tmp_path, billing)
    del tools["billing"]["http"]["openapi"]
    with pytest.raises(ConfigError, match=r"goes with `mcp` or `http\.openapi` only"):
        from_mapping(settings(tmp_path, tools))


def test_tools_list_shows_them(tmp_path: Path, billing: BillingServer) -> None:
    """With the class, tier and labels that the configuration gives them; a bad document is misuse."""
    (tmp_path / "whygate.yaml").write_text(yaml.safe_dump(settings(tmp_path, documented(tmp_path, billing))))
    command = ["list", "--config", str(tmp_path / "whygate.yaml"), "--json"]
    shown = CliRunner().invoke(tools_command, command)
    rows = {row["tool"]: row for row in json.loads(shown.stdout)["tools"]}
    assert set(rows) == {"billing/invoice_list", "billing/refund", "billing/refund*"}
    assert (rows["billing/refund"]["class"], rows["billing/refund"]["protocol"]) == ("spend", "http")
    assert rows["billing/refund*"]["pattern"] is True
    (tmp_path / "billing.yaml").write_text("[")
    failed = CliRunner().invoke(tools_command, command)
    assert failed.exit_code == 2
