"""What the configuration says of agents and tools, made into what the listeners work with: secrets resolved, documents read."""

import logging
from collections.abc import Mapping
from pathlib import Path

from whygate import config as settings
from whygate.api.agents import Listed as Agent
from whygate.channels.webhooks import Receiver
from whygate.config import Config, Server
from whygate.core.calls import Tool
from whygate.core.events import AgentRecord, Person
from whygate.core.records import AnyRecord, DecisionRecord
from whygate.flow.catalogue import Catalogue, Listed
from whygate.http.edge import HttpTool
from whygate.http.openapi import Document, OpenApiRefused, besides
from whygate.http.openapi import read as read_openapi
from whygate.http.routes import Route, Router
from whygate.mcp.backend import Server as McpServer
from whygate.mcp.crowd import Crowd
from whygate.stores.reader import Reader

_log = logging.getLogger("whygate")


def inventory(config: Config) -> tuple[Agent, ...]:
    """Who is listed, for the operators' listener."""
    return tuple(
        Agent(one.id, one.type.value, one.owner or "", one.purpose or "", one.status.value, one.roles)
        for one in config.identities.agents
    )


def documents(config: Config) -> dict[str, Document]:
    """The OpenAPI documents of plain HTTP tools, without what the configuration says otherwise. Raises ``ConfigError``."""
    made, problems = {}, []
    for name, server in config.tools.items():
        if server.http is not None and server.http.openapi is not None:
            try:
                made[name] = besides(read_openapi(server.http.openapi), _routes(server))
            except OpenApiRefused as wrong:
                key = f"tools.{name}.http.openapi"
                problems.append(settings.Problem(key=key, where="", what=str(wrong), fix="mend the document"))
    if problems:
        raise settings.ConfigError(problems)
    return made


def http_tools(config: Config, catalogue: Catalogue, found: Mapping[str, Document]) -> dict[str, HttpTool]:
    """The plain HTTP tools of a configuration, secrets resolved. Raises ``ConfigError``."""
    made = {}
    for name, server in config.tools.items():
        if server.http is None:
            continue
        declared = found.get(name, Document()).operations
        # The document's own spelling of a path's parameters, where both have the operation.
        routes = {one.name: one for one in _routes(server)}
        routes |= {one.name: Route(name=one.name, method=one.method, template=one.path) for one in declared}
        tools = {one: catalogue.find(name, one) for one in routes}
        made[name] = HttpTool(
            name=name,
            url=server.http.url.rstrip("/"),
            router=Router(tuple(routes.values())),
            tools={key: tool for key, tool in tools.items() if tool is not None},
            headers=_credential(server.http.credential, f"tools.{name}.http.credential.value"),
            signatures={one.name: one.signature for one in declared},
        )
        for reason in found.get(name, Document()).left_out:
            _log.warning("tools.%s.http.openapi: left out, so not to be called: %s", name, reason)
    return made


def _routes(server: Server) -> tuple[Route, ...]:
    return tuple(Route(name=one.name, method=one.method, template=one.path) for one in server.operations)


def mcp_servers(config: Config) -> dict[str, McpServer]:
    """The MCP servers of a configuration, secrets resolved. Raises ``ConfigError``."""
    made = {}
    for name, server in config.tools.items():
        if server.mcp is None:
            continue
        where = f"tools.{name}.mcp"
        made[name] = McpServer(
            name=name,
            url=server.mcp.url or "",
            headers=_credential(server.mcp.credential, f"{where}.credential.value"),
            command=server.mcp.command or (),
            env={key: settings.resolve(ref, key=f"{where}.env.{key}") for key, ref in server.mcp.env.items()},
            cwd=server.mcp.cwd or "",
        )
    return made


def _credential(credential: settings.Credential | None, key: str) -> tuple[tuple[str, str], ...]:
    if credential is None:
        return ()
    return ((credential.header, credential.prefix + settings.resolve(credential.value, key=key)),)


def listed_tools(name: str, server: Server, document: Document | None) -> Listed:
    """How the tools of one server are made, from what the operator said about them."""
    protocol = "mcp" if server.mcp is not None else "http"
    operations = {one.name: one for one in server.operations}
    definitions = {one.name: one.definition for one in document.operations} if document is not None else {}

    def make(tool: str) -> Tool:
        said = operations.get(tool) or (server.classify(tool) if protocol == "mcp" or tool in definitions else None)
        definition = definitions.get(tool, "")
        if said is None:
            return Tool(server=name, name=tool, type=protocol, definition=definition)
        return Tool(
            server=name,
            name=tool,
            type=protocol,
            tool_class=said.tool_class,
            tier=said.tier,
            labels=said.labels,
            definition=definition,
        )

    exact = [pattern for pattern in server.tools if protocol == "mcp" and not set(pattern) & set("*?[")]
    return Listed(make=make, names=(*operations, *definitions, *exact), pinned=protocol == "mcp")


def receivers(config: Config) -> tuple[Receiver, ...]:
    """Who is told what waits for people, secrets resolved. Raises ``ConfigError``."""
    return tuple(
        Receiver(
            url=each.url,
            secret=settings.resolve(each.secret, key=f"webhooks.{number}.secret"),
            slack=each.format == "chat",
        )
        for number, each in enumerate(config.webhooks)
    )


def named(each: settings.Named) -> Person:
    """Somebody of the configuration, as the console knows them."""
    return Person(groups=each.groups, id=each.id, name=each.name or "", roles=tuple(each.roles))


def shown_agent(agent: settings.Agent) -> dict[str, str]:
    """An agent of the inventory, for the console."""
    return {"owner": agent.owner or "", "purpose": agent.purpose or "", "status": agent.status.value}


def switched(record: AnyRecord, crowd: Crowd) -> None:
    """Nothing of an agent that is switched off goes on: not its streams, nor calls under way."""
    if isinstance(record, AgentRecord) and record.event == "suspended" and (cut := crowd.cut(record.agent)):
        _log.warning("%s was switched off: %d exchanges were cut off", record.agent, cut)


def decision_of(ledger: Path, identity: str) -> DecisionRecord | None:
    """A decision by its id; ``None`` where there is none. Blocks."""
    with Reader(ledger) as reader:
        try:
            found = reader.find(identity).record
        except LookupError:
            return None
    return found if isinstance(found, DecisionRecord) else None
