"""Every setting, once.

Rules of this file:

1. A setting is a field here and nowhere else. Unknown keys are refused, types are strict, values are frozen.
2. The configuration holds references to secrets (``env:NAME``, ``file:PATH``), never their values.
3. No setting switches a check off.

What holds between settings (names that must differ, keys that exclude each other) stands in ``reading``, because it is
checked even where single values are wrong, so that all problems come at once.
"""

import fnmatch
import json
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from whygate.config.shapes import (
    Address,
    Algorithm,
    FilePath,
    HeaderName,
    HeaderPrefix,
    HostName,
    Id,
    Jwks,
    KeyHash,
    Kind,
    Label,
    Line,
    Origin,
    PathTemplate,
    Role,
    SecretRef,
    Selector,
    ServerName,
    ToolName,
    ToolPattern,
    Url,
)
from whygate.core.calls import Tier, ToolClass
from whygate.core.identity import IdentityType, Status
from whygate.core.ids import sha256_digest


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Agent(Section):
    """An entry of the inventory: who may call, and who answers for it."""

    id: Id = Field(description="The `sub` of its tokens, and the id that policies and records name.")
    type: Kind = Field(
        default=IdentityType.AI_AGENT, description="What it is. An agent is not a person, nor a service account."
    )
    owner: Line | None = Field(default=None, description="Who answers for it: a person or a team that can be reached.")
    purpose: Line | None = Field(default=None, description="What it is for, in one line.")
    status: Status = Field(
        default=Status.ACTIVE,
        description="`suspended` and `retired` are recognised, and refused with their own reason.",
    )
    roles: tuple[Role, ...] = Field(default=(), description="Policies select them as `role:<name>`.")
    api_keys: tuple[KeyHash, ...] = Field(
        default=(), description="SHA-256 of each API key that is valid for it; two while one replaces the other."
    )
    issuer: Url | None = Field(
        default=None,
        description="Whose tokens may speak for it. Where it is absent: the one configured issuer; with several, none.",
    )
    adopt_trace: bool = Field(default=False, description="It may choose its own trace ids.")


class Issuer(Section):
    """Whose tokens are believed."""

    issuer: Url = Field(description="Compared with `iss` character by character.")
    audiences: tuple[Line, ...] = Field(min_length=1, description="A token's `aud` must hold one of these.")
    jwks: Jwks = Field(description="Its public keys: `file:PATH`, or an https URL (http on this machine only).")
    algorithms: tuple[Algorithm, ...] = Field(
        default=("ES256", "RS256"), min_length=1, description="Signatures that are accepted; asymmetric ones only."
    )
    roles_claim: Line = Field(
        default="roles", description="The claim that holds the subject's roles; dots lead into objects."
    )
    unlisted_as: Kind | None = Field(
        default=None,
        description="What a subject is that the inventory does not list. Where it is absent: refused.",
    )


class Named(Section):
    """Somebody who signs in to the console, with roles and groups that stand before what was recorded."""

    id: Id = Field(description="As tokens and policies name them.")
    name: Line | None = Field(default=None, description="What pages call them.")
    roles: tuple[Literal["owner", "operator", "approver", "auditor", "breakglass"], ...] = Field(
        default=(), description="What they may do in the console."
    )
    groups: tuple[Role, ...] = Field(default=(), description="Policies name them as `group:<name>` among approvers.")


class Identities(Section):
    """Who may call."""

    agents: tuple[Agent, ...] = Field(default=(), description="The inventory.")
    issuers: tuple[Issuer, ...] = Field(default=(), description="Whose tokens are believed.")
    people: tuple[Named, ...] = Field(default=(), description="Roles and groups of people who use the console.")
    task_openers: tuple[Selector, ...] = Field(
        default=(), description="Who besides people may open tasks and have policies reloaded: ids, or `role:<name>`."
    )


class Webhook(Section):
    """Who is told that somebody is asked, and of what is loud. Carries a link to sign in by, and no values of calls."""

    url: Url = Field(description="Where to; nothing else is ever called, and redirects are not followed.")
    secret: SecretRef = Field(description="Signs each message (Standard Webhooks): `env:NAME` or `file:PATH`.")
    format: Literal["plain", "chat"] = Field(
        default="plain", description="`chat`: only a text, as chat systems take it."
    )


class Classification(Section):
    """What the operator says about a tool. A tool without one counts as high tier with untrusted results."""

    tool_class: ToolClass = Field(alias="class", description="What it does to the world.")
    tier: Tier = Field(default=Tier.HIGH, description="How much harm a wrong call can do.")
    labels: tuple[Label, ...] = Field(
        default=("untrusted",), description="What its results carry: `untrusted`, `sensitive`, or words of your own."
    )


class Operation(Classification):
    """One tool of a plain HTTP server."""

    name: ToolName = Field(description="The tool's name in policies: `server/name`.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = Field(description="The HTTP method.")
    path: PathTemplate = Field(description="Below the server's URL; `{parameters}` are whole segments.")


class Credential(Section):
    """What the gateway shows to the upstream. What the caller sent is never passed on."""

    header: HeaderName = Field(default="Authorization", description="The header that carries it.")
    prefix: HeaderPrefix = Field(default="", description='What stands before the secret, e.g. `"Bearer "`.')
    value: SecretRef = Field(description="`env:NAME` or `file:PATH`.")


class Mcp(Section):
    """An MCP server: a program to start (`command`) or an address (`url`)."""

    command: tuple[Line, ...] | None = Field(
        default=None, min_length=1, description="Program and arguments; started without a shell."
    )
    env: dict[str, SecretRef] = Field(
        default={}, description="Environment of the program, by reference, beside `PATH` and the like."
    )
    cwd: FilePath | None = Field(default=None, description="Where it runs.")
    url: Url | None = Field(default=None, description="Where it answers (Streamable HTTP).")
    credential: Credential | None = Field(default=None, description="How we prove ourselves to it; with `url` only.")


class Http(Section):
    """A plain HTTP server."""

    url: Url = Field(description="What the paths of the operations are appended to.")
    openapi: FilePath | None = Field(
        default=None, description="An OpenAPI document (3.0 or 3.1, JSON or YAML) that declares its operations."
    )
    credential: Credential | None = Field(default=None, description="How we prove ourselves to it.")


class Server(Section):
    """One server behind the gateway: exactly one of `mcp` and `http`."""

    mcp: Mcp | None = Field(default=None, description="It speaks MCP.")
    http: Http | None = Field(default=None, description="It speaks plain HTTP.")
    tools: dict[ToolPattern, Classification] = Field(
        default={},
        description="Classification of its tools, by name or with `*`: of an MCP server, or of an OpenAPI document.",
    )
    operations: tuple[Operation, ...] = Field(default=(), description="The tools of a plain HTTP server.")

    def classify(self, tool: str) -> Classification | None:
        """The operator's word on a tool that somebody else lists: its own name first, then the pattern with the most
        letters, then the one that stands first. ``None``: unclassified.
        """
        if tool in self.tools:
            return self.tools[tool]
        patterns = [pattern for pattern in self.tools if "*" in pattern and fnmatch.fnmatchcase(tool, pattern)]
        best = max(patterns, key=lambda pattern: len(pattern.replace("*", "")), default=None)
        return None if best is None else self.tools[best]


class Telemetry(Section):
    """Where traces go."""

    otlp: Url | None = Field(default=None, description="OTLP over HTTP. Where it is absent: no export.")
    jaeger: Url | None = Field(default=None, description="Where Jaeger's pages are: the console then links to traces.")
    service_name: Line = Field(default="whygate", description="`service.name` of our spans.")


def _called(data: dict[str, Any]) -> str:
    return f"http://{data.get('listen', '')}"


def _console(data: dict[str, Any]) -> str:
    return f"http://localhost:{str(data.get('operators_listen', '')).rpartition(':')[2]}"


class Config(Section):
    """The whole configuration."""

    # Built by `load` or `from_mapping`, which check what holds between settings as well.

    deployment: Line = Field(default="local", description="Your name for this installation; rules see it.")
    listen: Address = Field(default="127.0.0.1:8700", description="Where agents call.")
    operators_listen: Address = Field(
        default="127.0.0.1:8701", description="Where operators call: `/v1`, health, metrics, console."
    )
    public_url: Url = Field(
        default_factory=_called, description="What agents call us. Default: `http://` and `listen`."
    )
    console_url: Url = Field(
        default_factory=_console,
        description="Where people answer, without `/console`. Default: `http://localhost` and the port of"
        " `operators_listen`; passkeys are bound to its name, so an address in digits can't have any.",
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        default=(),
        description="More values of `Host` that agents may use than that of `public_url`, and names of the operators'"
        " listener: both refuse names that they don't know.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        default=(), description="Web origins whose pages may call. Where a request names another: refused."
    )
    ledger: FilePath = Field(description="The SQLite file of the ledger; made where there is none.")
    policies: FilePath = Field(description="The folder of the policy files.")
    pins: FilePath = Field(
        default=cast("Path", "pins"),  # read as if it stood in the file: beside it, that is
        validate_default=True,
        description="The folder of the accepted definitions of MCP tools, one file for each server: see"
        " `whygate tools pin`.",
    )
    identities: Identities = Field(default=Identities(), description="Who may call.")
    webhooks: tuple[Webhook, ...] = Field(default=(), description="Who is told what waits for people.")
    tools: dict[ServerName, Server] = Field(default={}, description="The servers behind the gateway, by name.")
    telemetry: Telemetry = Field(default=Telemetry(), description="Where traces go.")

    @property
    def digest(self) -> str:
        """Of everything that is set, for the ledger's ``start`` record. References count, secrets are not in here."""
        plain = self.model_dump(mode="json", by_alias=True)
        return sha256_digest(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of ``whygate.yaml``."""
    whole = Config.model_json_schema(by_alias=True)
    for section in (whole, *whole["$defs"].values()):
        for each in section.get("properties", {}).values():
            if "patternProperties" in each:
                each["additionalProperties"] = False  # a name of another shape is refused here as it is there
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "title": "whygate.yaml"}
