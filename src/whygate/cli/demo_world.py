"""What the demo plays in: a temporary folder with a repository, keys, a configuration, and the servers behind it."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from joserfc import jwt
from joserfc.jwk import ECKey

from whygate.cli.pinning import accept_all
from whygate.config import load

ISSUER: Final = "https://idp.demo.example"
AUDIENCE: Final = "whygate-demo"
READY_S: Final = 30.0
JAEGER_OTLP: Final = ("127.0.0.1", 4318)


class DemoFailed(Exception):
    """The demo can't go on; the message says why, for the person at the terminal."""


def shipped(name: str) -> Path:
    """A folder that comes with the project (``policies``, ``agents_examples``): in a checkout, or in the wheel."""
    here = Path(__file__).resolve().parent.parent
    for place in (here.parent.parent / name, here / "shipped" / name):
        if place.is_dir():
            return place
    raise DemoFailed(f"{name} did not come with this installation")


class World:
    """Made in ``folder``; everything it starts is stopped when ``close`` is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ECKey.generate_key("P-256", {"kid": "demo-1", "use": "sig", "alg": "ES256"})
        self.agents_url = f"http://127.0.0.1:{_free_port()}"
        self.operators_url = f"http://127.0.0.1:{_free_port()}"
        self.otlp = "http://127.0.0.1:4318" if _listens(JAEGER_OTLP) else None
        self.repository = folder / "repository"
        self._undo = ExitStack()

    @property
    def config(self) -> Path:
        return self.folder / "whygate.yaml"

    @property
    def ledger(self) -> Path:
        return self.folder / "whygate.db"

    @property
    def log(self) -> Path:
        return self.folder / "gateway.log"

    def token(self, subject: str, *, expired: bool = False, act: dict[str, Any] | None = None, **more: Any) -> str:
        """A JWT as an identity provider would issue it (RFC 9068), signed with the demo's key."""
        now = int(time.time())
        born = now - 7200 if expired else now
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": born, "exp": born + 3600, **more}
        if act is not None:
            claims["act"] = act
        return jwt.encode({"alg": "ES256", "kid": "demo-1", "typ": "at+jwt"}, claims, self.key)

    def build(self) -> None:
        """Write everything down. Raises ``DemoFailed``."""
        self._make_repository()
        (self.folder / "jwks.json").write_text(json.dumps({"keys": [self.key.as_dict(private=False)]}))
        policies = self.folder / "policies"
        policies.mkdir()
        source = shipped("policies") / "support-agent.yaml"
        (policies / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")

    def start(self) -> None:
        """Start the billing API and the gateway, and wait until calls can be decided. Raises ``DemoFailed``."""
        credential = secrets.token_urlsafe(16)
        billing = self._spawn(
            [sys.executable, "-m", "whygate.testing.billing"],
            stdout=subprocess.PIPE,
            env={**os.environ, "BILLING_TOKEN": credential},
        )
        assert billing.stdout is not None  # noqa: S101  # it was asked for in the line above
        url = billing.stdout.readline().decode().strip()
        self.config.write_text(yaml.safe_dump(self._settings(url), sort_keys=False), encoding="utf-8")
        os.environ["DEMO_BILLING_TOKEN"] = credential
        for each in accept_all(load(self.config), "whygate demo"):
            if each.failed:
                raise DemoFailed(f"the server {each.server} could not be asked for its tools: {each.failed}")
        log = self._undo.enter_context(self.log.open("ab"))
        gateway = self._spawn(
            [sys.executable, "-m", "whygate", "serve", "--config", str(self.config)],
            stdout=log,
            stderr=log,
            env=dict(os.environ),
        )
        self._wait_ready(gateway)

    @property
    def console_url(self) -> str:
        """By name: an address in digits can't be a passkey's."""
        return f"http://localhost:{self.operators_url.rpartition(':')[2]}"

    def owners_link(self) -> str:
        """The one-time link that makes the first owner of the console. Raises ``DemoFailed``."""
        path = Path(f"{self.ledger}.owner-link")
        for _ in range(100):
            if path.exists() and (text := path.read_text().strip()):
                return text
            time.sleep(0.05)
        raise DemoFailed("the gateway gave no link to its console")

    def open_task(self, goal: str, agents: list[str]) -> dict[str, Any]:
        """Open a task as the person for whom the work is done."""
        person = self.token("ada@example.com", name="Ada")
        body = {"goal": goal, "agents": agents, "workflow": "refund-claim", "incident": "TICKET-4711"}
        answer = httpx.post(
            f"{self.operators_url}/v1/tasks", json=body, headers={"authorization": f"Bearer {person}"}, timeout=10
        )
        if answer.status_code != 201:
            raise DemoFailed(f"the task could not be opened: {answer.status_code} {answer.text}")
        opened: dict[str, Any] = answer.json()
        return opened

    def close(self) -> None:
        self._undo.close()

    def _settings(self, billing: str) -> dict[str, Any]:
        return {
            "deployment": "demo",
            "listen": self.agents_url.removeprefix("http://"),
            "operators_listen": self.operators_url.removeprefix("http://"),
            "ledger": str(self.ledger),
            "policies": str(self.folder / "policies"),
            "pins": str(self.folder / "pins"),
            "identities": {
                "agents": [
                    {
                        "id": "agent:support",
                        "owner": "support-team@example.com",
                        "purpose": "Looks into complaints and makes them right.",
                        "roles": ["support-agent"],
                    },
                    {
                        "id": "agent:researcher",
                        "owner": "support-team@example.com",
                        "purpose": "Looks things up for other agents.",
                        "roles": ["researcher"],
                    },
                ],
                "people": [
                    {
                        "id": "grace@example.com",
                        "name": "Grace",
                        "roles": ["owner", "operator", "approver", "breakglass"],
                        "groups": ["finance-leads"],
                    }
                ],
                "issuers": [
                    {
                        "issuer": ISSUER,
                        "audiences": [AUDIENCE],
                        "jwks": f"file:{self.folder / 'jwks.json'}",
                        "algorithms": ["ES256"],
                        "unlisted_as": "human",
                    }
                ],
            },
            "tools": self._tools(billing),
            **({"telemetry": {"otlp": self.otlp}} if self.otlp else {}),
        }

    def _tools(self, billing: str) -> dict[str, Any]:
        python = sys.executable
        read = {"class": "read", "tier": "low"}
        write = {"class": "write", "tier": "medium"}
        reading = ("git_status", "git_log", "git_diff*", "git_show", "git_branch")
        writing = ("git_add", "git_commit", "git_create_branch", "git_checkout")
        operations = [
            {"name": "invoice_get", "method": "GET", "path": "/invoices/{invoice_id}", "class": "read", "tier": "low"},
            {"name": "refund", "method": "POST", "path": "/refunds", "class": "spend", "tier": "high"},
            {"name": "customer_export", "method": "GET", "path": "/customers/export", "class": "read", "tier": "high"},
        ]
        return {
            "git": {
                "mcp": {"command": [python, "-m", "mcp_server_git", "--repository", str(self.repository)]},
                "tools": {
                    **dict.fromkeys(reading, read),
                    **dict.fromkeys(writing, write),
                    "git_reset": {"class": "delete", "tier": "high"},
                },
            },
            "time": {
                "mcp": {"command": [python, "-m", "mcp_server_time", "--local-timezone", "UTC"]},
                "tools": {"*": {**read, "labels": []}},
            },
            "billing": {
                "http": {"url": billing, "credential": {"prefix": "Bearer ", "value": "env:DEMO_BILLING_TOKEN"}},
                "operations": operations,
            },
        }

    def _make_repository(self) -> None:
        self.repository.mkdir()
        (self.repository / "README.md").write_text("# Claims\n", encoding="utf-8")
        settings = {"user.name": "Demo", "user.email": "demo@example.com", "commit.gpgsign": "false"}
        steps = [["init", "-q"], *(["config", key, value] for key, value in settings.items())]
        steps += [["add", "."], ["commit", "-q", "-m", "Claims desk"]]
        for step in steps:
            try:
                subprocess.run(["git", *step], cwd=self.repository, check=True, capture_output=True)  # noqa: S603, S607  # fixed arguments; git is found as the MCP server finds it
            except FileNotFoundError:
                raise DemoFailed("the demo needs git: install it and run this again") from None
        (self.repository / "note.md").write_text("TICKET-4711: refunded 45.00 on invoice 1042.\n", encoding="utf-8")

    def _spawn(self, command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)  # noqa: S603  # our own command lines
        self._undo.callback(_stop, process)
        return process

    def _wait_ready(self, gateway: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if gateway.poll() is not None:
                raise DemoFailed(f"the gateway did not start:\n{self.log.read_text(errors='replace')}")
            try:
                if httpx.get(f"{self.operators_url}/readyz", timeout=1).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise DemoFailed(f"the gateway was not ready within {READY_S:.0f} s; its log is {self.log}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.3)
        return probe.connect_ex(address) == 0
