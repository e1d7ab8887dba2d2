"""A gateway's folder: configuration, keys, tokens, and a policy of which most rules are about other tools."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from joserfc import jwt
from joserfc.jwk import ECKey

from whygate.core.pins import pin, text_of
from whygate.policy_files import write_pins

AGENTS = 10
SESSIONS = 100
"""Each a task: derived from the agent and its session."""
RULES = 100
RULES_PER_FILE = 10
ISSUER = "https://issuer.bench.example"
AUDIENCE = "whygate-bench"
ROLE = "bench-agent"
TOKEN_TTL_S = 24 * 3600
TOOL = "bench/remind"
_TEXT = {"type": "string"}
DEFINITION: dict[str, Any] = {
    "name": "remind",
    "description": "Remind a customer of an invoice.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "text": _TEXT,
            "customer": {"type": "string", "pattern": "^cus_[0-9]+$"},
            "amount_cents": {"type": "integer", "minimum": 1},
            "currency": {"type": "string", "enum": ["EUR", "USD", "GBP"]},
            "channel": _TEXT,
            "language": _TEXT,
            "note": _TEXT,
        },
        "required": ["text", "customer", "amount_cents"],
    },
}
"""The called tool as its server lists it, and as it is pinned: arguments are checked against it on every call."""

APPLYING: tuple[dict[str, Any], ...] = (
    {
        "id": "remind-customers",
        "tools": [TOOL],
        "when": 'args.customer.startsWith("cus_") && args.amount_cents > 0 && args.amount_cents <= 1000000',
        "permit": {},
        "why": "Reminders of ordinary amounts are routine.",
    },
    {
        "id": "remind-large",
        "tools": [TOOL],
        "when": "args.amount_cents > 1000000",
        "permit": {"require": {"human": {"approvers": ["group:finance-leads"], "within": "10m"}}},
        "why": "Large amounts need a finance lead.",
    },
    {
        "id": "no-foreign-currency",
        "tools": ["bench/*"],
        "when": 'has(args.currency) && !(args.currency in ["EUR", "USD", "GBP"])',
        "deny": {},
        "why": "Only the house's currencies.",
    },
    {
        "id": "no-letters",
        "tools": ["class:send"],
        "when": 'has(args.channel) && args.channel == "letter"',
        "deny": {},
        "why": "Letters are sent by people.",
    },
    {
        "id": "no-links",
        "tools": [TOOL],
        "when": 'args.text.contains("http://") || args.text.size() > 2000',
        "deny": {},
        "why": "A reminder is short and links nowhere insecure.",
    },
)
"""The rules about the called tool: one permits it, four have to be evaluated and do not hold."""


def rules(count: int) -> Iterator[dict[str, Any]]:
    """``count`` rules, the applying ones among them."""
    yield from APPLYING
    for number in range(count - len(APPLYING)):
        yield {
            "id": f"other-{number}",
            "tools": [f"bench/other_{number}" if number % 2 else f"other{number}/*"],
            "when": f"args.amount_cents > {number} && args.customer != 'cus_{number}'",
            "permit": {},
            "why": f"Tool {number} has its rule too.",
        }


def policy_texts(count: int = RULES, per_file: int = RULES_PER_FILE) -> dict[str, str]:
    """Policy files by name."""
    every = list(rules(count))
    texts = {}
    for first in range(0, len(every), per_file):
        name = f"bench-{first // per_file:03d}"
        document = {
            "policy": name,
            "version": 1,
            "owner": "bench@example.com",
            "agents": [f"role:{ROLE}"],
            "rules": every[first : first + per_file],
        }
        texts[f"{name}.yaml"] = yaml.safe_dump(document, sort_keys=False, width=1000)
    return texts


class Keys:
    """The issuer's key pair, and tokens of the agents."""

    def __init__(self) -> None:
        self._key = ECKey.generate_key("P-256", {"kid": "bench", "use": "sig", "alg": "ES256"})

    def jwks(self) -> str:
        return json.dumps({"keys": [self._key.as_dict(private=False)]})

    def token(self, agent: str) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": agent, "aud": AUDIENCE, "iat": now - 5, "exp": now + TOKEN_TTL_S, "jti": agent}
        return jwt.encode({"alg": "ES256", "kid": "bench", "typ": "at+jwt"}, claims, self._key, algorithms=["ES256"])


def agent_ids() -> list[str]:
    return [f"agent-{number}" for number in range(AGENTS)]


def write(folder: Path, keys: Keys, ports: dict[str, int]) -> Path:
    """Everything that ``whygate serve`` reads. ``ports``: gateway, operators, upstream, sink."""
    policies = folder / "policies"
    policies.mkdir()
    for name, text in policy_texts().items():
        (policies / name).write_text(text)
    (folder / "jwks.json").write_text(keys.jwks())
    write_pins(folder / "pins", "bench", text_of("bench", [pin("bench", DEFINITION, by="bench", at="")]))
    config = {
        "deployment": "bench",
        "listen": f"127.0.0.1:{ports['gateway']}",
        "operators_listen": f"127.0.0.1:{ports['operators']}",
        "public_url": f"http://127.0.0.1:{ports['gateway']}",
        "ledger": "ledger.db",
        "policies": "policies",
        "identities": {
            "issuers": [{"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": "file:jwks.json", "algorithms": ["ES256"]}],
            "agents": [{"id": agent, "owner": "bench@example.com", "roles": [ROLE]} for agent in agent_ids()],
        },
        "tools": {
            "bench": {
                "mcp": {"url": f"http://127.0.0.1:{ports['upstream']}/mcp"},
                "tools": {"remind": {"class": "send", "tier": "medium", "labels": []}},
            }
        },
        "telemetry": {"otlp": f"http://127.0.0.1:{ports['sink']}"},
    }
    path = folder / "whygate.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
