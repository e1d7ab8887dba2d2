"""What the fuzzed gateway is configured with: tools, a policy, who may call, and credentials of every kind."""

import base64
import hashlib
import time
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import ECKey
from tests.fuzz.inputs import Known

from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.pins import PinSet, pin
from whygate.flow.tasks import NewTask, Tasks

ISSUER: Final = "https://idp.test.example"
HOST: Final = "gw.test:8700"
TOOLS_SECRET: Final = "the-gateways-own-secret"
KEY: Final = "wg_" + "k" * 43
SECRETS: Final = (TOOLS_SECRET, KEY, "cookie-of-the-agent", "x-key-of-the-agent", "cHJveHk6c2VjcmV0")
DIGEST_KEY: Final = b"d" * 32
POLICY: Final = """
policy: fuzz
version: 1
owner: fuzz@example.com
agents: ["role:support"]
rules:
  - id: routine
    tools: ["up/*", "piped/*", "billing/invoice_get", "billing/note_*", "typed/*"]
    permit: {}
    why: Routine.
  - id: notes
    tools: ["resource:up/file:///notes/*", "resource:piped/file:///notes/*", "prompt:up/greet", "prompt:piped/greet"]
    permit: {}
    why: Notes and greetings.
  - id: forms
    tools: ["question:*/elicitation"]
    permit: {}
    why: Forms may be asked.
  - id: never
    tools: ["*/danger"]
    deny: {}
    why: Nobody does that.
  - id: deep
    tools: ["*/echo", "*/note_*", "typed/*"]
    when: has(args.deep) && args.deep == "never" || has(args.text) && args.text == "never"
    deny: {}
    why: What this rule reads is bounded.
  - id: scoped
    tools: ["*/scoped"]
    permit: {require: {scope: [more]}}
    why: Needs a scope.
  - id: refunds
    tools: [billing/refund]
    when: args.amount_cents > 0 && args.amount_cents <= 10000
    permit: {}
    why: Small ones.
  - id: cap
    tools: [billing/refund, typed/refund]
    when: has(args.amount_cents) && args.amount_cents > 500000
    deny: {code: args.limit_exceeded}
    why: Nobody refunds that much.
"""
TYPED: Final = {
    "openapi": "3.1.0",
    "paths": {
        "/invoices": {
            "get": {
                "operationId": "invoice_list",
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer"}},
                    {"name": "paid", "in": "query", "schema": {"type": "boolean"}},
                    {"name": "tag", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {
                        "name": "ids",
                        "in": "query",
                        "explode": False,
                        "schema": {"type": "array", "items": {"type": "integer"}},
                    },
                ],
            }
        },
        "/invoices/{number}": {
            "get": {
                "operationId": "invoice_get",
                "parameters": [{"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}],
            }
        },
        "/invoices/{number}/refund": {
            "post": {
                "operationId": "refund",
                "parameters": [{"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["amount_cents"],
                                "properties": {
                                    "amount_cents": {"type": "integer", "minimum": 1},
                                    "note": {"type": "string", "maxLength": 200},
                                    "lines": {"type": "array", "items": {"type": "object"}},
                                },
                            }
                        }
                    },
                },
            }
        },
    },
}
BILLING: Final = [
    {"name": name, "method": method, "path": path, "class": "read"}
    for name, method, path in (
        ("invoice_get", "GET", "/invoices/{invoice_id}"),
        ("invoice_head", "HEAD", "/invoices/{invoice_id}"),
        ("refund", "POST", "/refunds"),
        ("customer_export", "GET", "/customers/export"),
        ("note_put", "PUT", "/notes/{note_id}/text"),
        ("note_patch", "PATCH", "/notes/{note_id}/text"),
        ("note_delete", "DELETE", "/notes/{note_id}/text"),
    )
]


PINNED: Final = (
    {"name": "echo", "inputSchema": {"type": "object"}},
    {"name": "danger", "inputSchema": {"type": "object"}},
    {
        "name": "scoped",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}, "count": {"type": "integer"}}},
    },
)
"""Everything else that is called on an MCP server here is a tool that nobody has pinned."""


def pins() -> PinSet:
    return PinSet({}, [pin(server, each, by="fuzz", at="") for server in ("up", "piped") for each in PINNED])


def settings(folder: Path) -> dict[str, Any]:
    secret = {"prefix": "Bearer ", "value": f"file:{folder / 'secret'}"}
    return {
        "listen": HOST.replace("gw.test", "127.0.0.1"),
        "public_url": f"http://{HOST}",
        "operators_listen": "127.0.0.1:8701",
        "ledger": str(folder / "none.db"),
        "policies": str(folder),
        "identities": {
            "agents": [
                {
                    "id": "agent:support",
                    "roles": ["support"],
                    "owner": "o@example.com",
                    "api_keys": [f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"],
                },
                {"id": "agent:suspended", "roles": ["support"], "status": "suspended"},
                {"id": "agent:other", "roles": ["support"]},
            ],
            "issuers": [{"issuer": ISSUER, "audiences": ["whygate"], "jwks": f"file:{folder / 'jwks.json'}"}],
        },
        "tools": {
            "up": {"mcp": {"url": "http://mcp.tools.test/mcp", "credential": secret}},
            "piped": {"mcp": {"command": ["never-run"]}},
            "billing": {"http": {"url": "http://billing.tools.test", "credential": secret}, "operations": BILLING},
            "typed": {
                "http": {
                    "url": "http://typed.tools.test/api",
                    "openapi": str(folder / "typed.json"),
                    "credential": secret,
                }
            },
        },
    }


async def known(tasks: Tasks, key: ECKey) -> Known:
    person = Principal(id="ada@example.com", type=IdentityType.HUMAN, proof=Proof.JWT)
    own = await tasks.open(NewTask(agents=("agent:support",), workflow="claims", incident="INC-1"), person)
    foreign = await tasks.open(NewTask(agents=("agent:other",), workflow="other", incident="INC-2"), person)
    now = int(time.time())

    def token(kid: str = "test-1", by: ECKey = key, **changed: Any) -> str:
        claims = {"iss": ISSUER, "aud": "whygate", "sub": "agent:support", "iat": now, "exp": now + 86_400} | changed
        return "Bearer " + jwt.encode({"alg": "ES256", "kid": kid}, claims, by)

    good = token()
    none = "Bearer " + ".".join((_b64(b'{"alg":"none"}'), good.split(".")[1], ""))
    return Known(
        credentials=(
            ("key", f"Bearer {KEY}"),
            ("jwt", good),
            ("suspended", token(sub="agent:suspended")),
            ("expired", token(exp=now - 9)),
            ("audience", token(aud="other")),
            ("issuer", token(iss="https://evil.example")),
            ("none", none),
            ("stranger", token(by=ECKey.generate_key("P-256", {"kid": "test-1"}))),
            ("cut", good[:-5]),
            ("unknown key", "Bearer wg_" + "z" * 43),
            ("scheme", "Basic YTpi"),
            ("empty", "Bearer "),
            ("garbage", "Bearer a.b.c"),
            ("missing", ""),
        ),
        host=HOST,
        own_task=own.id,
        foreign_task=foreign.id,
        foreign_task_trace=foreign.trace_id,
    )


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
