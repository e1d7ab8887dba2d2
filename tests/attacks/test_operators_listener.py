"""The operators' listener against web pages, strangers and odd bodies."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.servers.gateway import Running, running


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, {}, allowed_hosts=["gateway.example"]) as made:
        yield made


@pytest.mark.parametrize("path", ["/metrics", "/schema/openapi.json", "/v1/tasks", "/healthz", "/nowhere"])
async def test_a_name_that_is_not_ours_gets_nothing(gateway: Running, path: str) -> None:
    """A web page whose name was pointed at this address (DNS rebinding) reads neither metrics nor schema."""
    async with httpx.AsyncClient() as client:
        for headers in (
            {"host": "rebound.example"},
            {"host": "127.0.0.1.rebound.example"},
            {"origin": "http://page.example"},
            {"origin": "null"},
        ):
            answer = await client.get(gateway.operators_url + path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "request.origin_refused")
    assert gateway.decisions() == []


@pytest.mark.parametrize(
    "host", ["localhost", "10.1.2.3:9090", "[::1]:9090", "gateway.example", "Gateway.Example:9090"]
)
async def test_addresses_and_our_own_names_are_answered(gateway: Running, host: str) -> None:
    """Probes and scrapers ask by address; a name is ours once it stands in ``allowed_hosts``."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(
            f"{gateway.operators_url}/healthz", headers={"host": host, "origin": f"http://{host}"}
        )
    assert answer.status_code == 200


async def test_a_body_that_breaks_its_reader_is_a_bad_request(gateway: Running) -> None:
    """Nesting without end is the caller's mistake, not ours, and nothing of our inside is told."""
    headers = gateway.headers("ada@example.com") | {"content-type": "application/json"}
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.post(f"{gateway.operators_url}/v1/tasks", content=b"[" * 60_000)
    assert answer.status_code == 400, answer.text
    assert "Traceback" not in answer.text
