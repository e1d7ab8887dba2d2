"""A real gateway inside a test: real listeners, real ledger, real tokens."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from whygate import wiring
from whygate.config import Config, from_mapping
from whygate.core.pins import pin, text_of
from whygate.core.reasons import Code
from whygate.mcp.backend import Server as McpServer
from whygate.mcp.looking import whole
from whygate.policy_files import write_pins
from whygate.stores.reader import Reader
from whygate.testing.billing import BillingServer
from whygate.transport.upstream import UpstreamError
from whygate.wiring import Gateway
from whygate.wiring_tools import mcp_servers

ISSUER = "https://idp.test.example"
AUDIENCE = "whygate-test"
POLICIES = Path(__file__).parents[2] / "policies"
EXAMPLES = Path(__file__).parents[2] / "agents_examples"


class Tokens:
    """An identity provider's key, and tokens signed with it."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "test-1", "use": "sig", "alg": "ES256"})

    def jwks(self) -> dict[str, Any]:
        return {"keys": [self.key.as_dict(private=False)]}

    def make(self, subject: str = "agent:support", *, key: ECKey | None = None, **changed: Any) -> str:
        """A token for ``subject``; a claim given as None is left out."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 600} | changed
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": "test-1"}, claims, key or self.key)


class Running:
    """A gateway that runs in the test's own event loop."""

    def __init__(self, gateway: Gateway, tokens: Tokens) -> None:
        self.gateway = gateway
        self.tokens = tokens
        self.url = f"http://{gateway.config.listen}"
        self.operators_url = f"http://{gateway.config.operators_listen}"
        self.ledger = Path(gateway.config.ledger)

    def headers(self, subject: str = "agent:support", **changed: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens.make(subject, **changed)}"}

    async def open_task(self, *agents: str, **more: Any) -> dict[str, Any]:
        """Open a task as a person."""
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"{self.operators_url}/v1/tasks",
                json={"agents": list(agents or ("agent:support",)), **more},
                headers=self.headers("ada@example.com"),
            )
        assert answer.status_code == 201, answer.text
        opened: dict[str, Any] = answer.json()
        return opened

    def records(self) -> list[dict[str, Any]]:
        """All records in the ledger so far, in order, read by a second connection."""
        reader = Reader(self.ledger)
        try:
            return [msgspec.json.decode(data) for _, data in reader.since(0, 1_000_000)]
        finally:
            reader.close()

    def decisions(self) -> list[dict[str, Any]]:
        return [record for record in self.records() if record["kind"] == "decision"]

    def decision(self, answer: httpx.Response) -> dict[str, Any]:
        """The record behind an answer's ``whygate-decision`` header."""
        (found,) = [one for one in self.decisions() if one["id"] == answer.headers["whygate-decision"]]
        return found


def settings(folder: Path, tools: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """A configuration in ``folder``; what is not said is as in the demo."""
    agents, operators = free_ports(2)
    return {
        "deployment": "test",
        "listen": f"127.0.0.1:{agents}",
        "operators_listen": f"127.0.0.1:{operators}",
        "ledger": str(folder / "whygate.db"),
        "policies": str(POLICIES),
        "pins": str(folder / "pins"),
        "identities": {
            "agents": [
                {"id": "agent:support", "owner": "support@example.com", "roles": ["support-agent"]},
                {"id": "agent:researcher", "owner": "support@example.com", "roles": ["researcher"]},
                {"id": "agent:suspended", "status": "suspended", "roles": ["support-agent"]},
                {"id": "agent:retired", "status": "retired", "roles": ["support-agent"]},
                {"id": "host:runner", "type": "service_account", "roles": ["host"]},
            ],
            "issuers": [
                {
                    "issuer": ISSUER,
                    "audiences": [AUDIENCE],
                    "jwks": f"file:{folder / 'jwks.json'}",
                    "algorithms": ["ES256"],
                    "unlisted_as": "human",
                }
            ],
            "task_openers": ["role:host"],
        },
        "tools": dict(tools),
    } | changed


def billing_tool(server: BillingServer, folder: Path) -> dict[str, Any]:
    """The billing API as the gateway is told of it; its credential lies in a file."""
    secret = folder / "billing.token"
    secret.write_text(server.token, encoding="utf-8")
    return {
        "http": {"url": server.url, "credential": {"prefix": "Bearer ", "value": f"file:{secret}"}},
        "operations": [
            {"name": "invoice_get", "method": "GET", "path": "/invoices/{invoice_id}", "class": "read", "tier": "low"},
            {"name": "refund", "method": "POST", "path": "/refunds", "class": "spend", "tier": "high"},
            {"name": "customer_export", "method": "GET", "path": "/customers/export", "class": "read"},
        ],
    }


def make_repository(folder: Path) -> Path:
    """A git repository with one commit and a note that is not committed yet."""
    folder.mkdir()
    (folder / "README.md").write_text("# Claims\n", encoding="utf-8")
    author = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    for step in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *step], cwd=folder, check=True)
    for key, value in (("user.name", "Test"), ("user.email", "test@example.com"), ("commit.gpgsign", "false")):
        subprocess.run(["git", "config", key, value], cwd=folder, check=True)
    (folder / "note.md").write_text("Refunded.\n", encoding="utf-8")
    return folder


def example_tools(folder: Path, billing: BillingServer, repository: Path) -> dict[str, Any]:
    """What the examples call: git and time over MCP and stdio, billing over plain HTTP."""
    read = {"class": "read", "tier": "low"}
    return {
        "billing": billing_tool(billing, folder),
        "git": {
            "mcp": {"command": [sys.executable, "-m", "mcp_server_git", "--repository", str(repository)]},
            "tools": {"git_log": read, "git_reset": {"class": "delete"}},
        },
        "time": {
            "mcp": {"command": [sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"]},
            "tools": {"*": read},
        },
    }


async def run_example(name: str, *, python: Path | None = None, **environment: str) -> tuple[int, str]:
    """Run a script of ``agents_examples``: its exit code, and everything it printed."""
    process = await asyncio.create_subprocess_exec(
        str(python or sys.executable),
        str(EXAMPLES / name),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


_SAID: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
"""What programs say of their tools: asked once in a run of the tests, because each takes seconds to start."""


def pin_these(config: Config, server: str, given: Iterable[Mapping[str, Any]]) -> None:
    """Accept these definitions. ``inputSchema`` may be left out: anything, then."""
    made = [
        pin(server, {"inputSchema": {"type": "object"}, **each}, by="tests", at="2026-01-01T00:00:00Z")
        for each in given
    ]
    write_pins(Path(config.pins), server, text_of(server, made))


async def pin_all(config: Config) -> None:
    """Accept whatever the configured servers say of their tools; a server that says nothing gets no pins."""
    for name, server in mcp_servers(config).items():
        found = _SAID.get(server.command)
        if found is None or server.url:
            try:
                found, _ = await whole(server)
            except UpstreamError:
                continue
            _SAID[server.command] = found
        pin_these(config, name, found.values())


@asynccontextmanager
async def running(
    folder: Path,
    tools: Mapping[str, Any],
    *,
    tokens: Tokens | None = None,
    pins: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    **changed: Any,
) -> AsyncIterator[Running]:
    """Start a gateway in ``folder``, with its tools pinned, and stop it afterwards.

    ``pins``: by server, definitions that are pinned without asking anybody: for servers that are none. The gateway does not
    look at them either.
    """
    tokens = tokens or Tokens()
    (folder / "jwks.json").write_text(json.dumps(tokens.jwks()), encoding="utf-8")
    config = from_mapping(settings(folder, tools, **changed))
    if pins is None:
        await pin_all(config)
        async with _running(config, tokens) as made:
            yield made
        return
    for server, given in pins.items():
        pin_these(config, server, given)

    async def nobody(_: McpServer) -> list[bytes]:
        raise UpstreamError(Code.UPSTREAM_FAILED, "not looked at in this test")

    with patch.object(wiring, "listed", nobody):
        async with _running(config, tokens) as made:
            yield made


@asynccontextmanager
async def _running(config: Config, tokens: Tokens) -> AsyncIterator[Running]:
    gateway = Gateway(config)
    await gateway.start()
    try:
        yield Running(gateway, tokens)
    finally:
        await gateway.stop()


def free_port() -> int:
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Different ones: each is held until the last is found."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
