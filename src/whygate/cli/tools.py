"""``whygate tools``: which tools there are, who could use them, and which definitions are accepted."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from whygate.cli.pinning import pin_tools, standings
from whygate.cli.reading import DEFAULT_CONFIG, MISUSE, NO, AsJson, ConfigFile, decoded, fail, load_config
from whygate.cli.screen import put, put_json, screen
from whygate.cli.words import counted, plain
from whygate.config import Classification, Config, Server
from whygate.core.calls import Tool
from whygate.core.identity import Principal, Proof, Status
from whygate.core.policy.errors import PolicyErrors
from whygate.core.policy.model import PolicySet
from whygate.core.policy.parse import load
from whygate.core.records import DecisionRecord
from whygate.core.things import KINDS
from whygate.flow.ports import LedgerUnavailable
from whygate.http.openapi import OpenApiRefused, besides, read
from whygate.http.routes import Route
from whygate.policy_files import read_folder
from whygate.stores.reader import Reader, Wanted

LOOKED: Final = 5000
"""Of the newest decisions: what nobody has called in these, nobody misses."""

app = typer.Typer(name="tools", help="List the tools, and pin their definitions.", no_args_is_help=True)
app.command(name="pin")(pin_tools)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One tool, or one pattern of tools, of ``whygate tools list --json``."""

    tool: str
    pattern: bool
    """It stands for all tools that fit it and have no row of their own."""
    server: str
    protocol: str
    tool_class: str = msgspec.field(name="class")
    tier: str
    labels: tuple[str, ...]
    standing: str
    """``pinned``, ``unpinned``, or ``changed`` (differs from its pin by what the gateway recorded last); ``operator`` for
    plain HTTP operations, which are the operator's own words; empty for a pattern."""
    classified: bool
    calls: int
    """Among the newest decisions of the ledger."""
    visible: bool | None
    """Whether some rule could permit it to the agent asked about; ``null`` where none was, or for a pattern."""
    rules: tuple[str, ...]
    """The rules that apply for that agent, as ``policy/rule``, each with what it is for."""


@app.callback()
def tools() -> None:
    """List the tools, and pin their definitions."""


@app.command(name="list")
def list_tools(
    config: ConfigFile = DEFAULT_CONFIG,
    ledger: Annotated[
        Path | None,
        typer.Option("--ledger", envvar="WHYGATE_LEDGER", help="Where to look for what was called, if not there."),
    ] = None,
    agent: Annotated[
        str, typer.Option("--agent", help="Show which of them the policy could permit to this agent.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the tools that the configuration classifies, and others that were called."""
    settings: Config = load_config(config)
    path = ledger if ledger is not None else Path(settings.ledger)
    seen = _seen(path)
    standing = standings(settings, path)
    principal = _principal(settings, agent) if agent else None
    policies = _policies(settings) if principal is not None else None
    rows = [
        _row(tool, pattern, seen, _about(tool, pattern, principal, policies, standing), standing)
        for tool, pattern in _tools(settings, seen, standing)
    ]
    if as_json:
        put_json({"agent": agent, "tools": rows})
        return
    _print(screen(), rows, agent)


def _seen(path: Path) -> Counter[tuple[str, str, str]]:
    """Server, name and protocol of what was called, with counts. Nothing where there is no ledger yet."""
    found: Counter[tuple[str, str, str]] = Counter()
    try:
        with Reader(path) as reader:
            for stored in reader.search(Wanted(limit=LOOKED)):
                record = decoded(stored)
                if isinstance(record, DecisionRecord) and record.resource.id and record.resource.type not in KINDS:
                    server, _, name = record.resource.id.partition("/")
                    found[server, name, record.resource.type] += 1
    except LedgerUnavailable:
        return Counter()
    return found


def _tools(
    settings: Config, seen: Counter[tuple[str, str, str]], standing: Mapping[tuple[str, str], str]
) -> list[tuple[Tool, bool]]:
    """All tools, by server and name; each with whether it is a pattern."""
    named: dict[tuple[str, str], tuple[Tool, bool]] = {}
    for server, one in settings.tools.items():
        for operation in one.operations:
            named[server, operation.name] = _tool(server, operation.name, "http", operation), False
        protocol = "mcp" if one.mcp is not None else "http"
        for pattern, said in one.tools.items():
            if protocol == "mcp" or "*" in pattern:
                named[server, pattern] = _tool(server, pattern, protocol, said), "*" in pattern
        for declared in _declared(one):
            if (server, declared) not in named:
                named[server, declared] = _tool(server, declared, "http", one.classify(declared)), False
    for server, name, protocol in (*seen, *((server, name, "mcp") for server, name in standing)):
        if (server, name) not in named:
            known = settings.tools.get(server)
            classified = known.classify(name) if known is not None else None
            named[server, name] = _tool(server, name, protocol, classified), False
    return [named[key] for key in sorted(named)]


def _declared(server: Server) -> list[str]:
    """The operations of its OpenAPI document. Ends with misuse where that can't be used."""
    if server.http is None or server.http.openapi is None:
        return []
    try:
        found = read(server.http.openapi)
    except OpenApiRefused as wrong:
        fail(
            MISUSE,
            f"The OpenAPI document can't be used.\n{plain(str(wrong))}",
            "Mend it: nothing starts with it either.",
        )
    routes = tuple(Route(name=one.name, method=one.method, template=one.path) for one in server.operations)
    return [one.name for one in besides(found, routes).operations]


def _tool(server: str, name: str, protocol: str, said: Classification | None) -> Tool:
    if said is None:
        return Tool(server=server, name=name, type=protocol)
    return Tool(server=server, name=name, type=protocol, tool_class=said.tool_class, tier=said.tier, labels=said.labels)


def _principal(settings: Config, agent: str) -> Principal:
    """The agent as the inventory has it. Ends with misuse for one that is not in it."""
    by_id = {one.id: one for one in settings.identities.agents}
    if agent not in by_id:
        fail(MISUSE, f"{plain(agent)} is not in the inventory.", f"There: {', '.join(by_id) or 'nobody'}")
    one = by_id[agent]
    if one.status is not Status.ACTIVE:
        fail(NO, f"{plain(agent)} is {one.status.value}: everything is refused to it.")
    return Principal(id=one.id, type=one.type, proof=Proof.NONE, roles=one.roles)


def _policies(settings: Config) -> PolicySet:
    try:
        return load(read_folder(settings.policies))
    except PolicyErrors as refused:
        fail(NO, "The policies can't be used.", "\n".join(str(error) for error in refused.errors))


def _about(
    tool: Tool,
    pattern: bool,
    principal: Principal | None,
    policies: PolicySet | None,
    standing: Mapping[tuple[str, str], str],
) -> tuple[bool | None, tuple[str, ...]]:
    if principal is None or policies is None or pattern:
        return None, ()
    rules = policies.applicable(principal, tool)
    told = tuple(
        f"{rule.policy}/{rule.id} would {rule.effect}{' if its condition holds' if rule.condition is not None else ''}"
        for rule in rules
    )
    usable = tool.type != "mcp" or standing.get((tool.server, tool.name)) == "pinned"
    return usable and policies.visible(principal, tool), told


def _row(
    tool: Tool,
    pattern: bool,
    seen: Counter[tuple[str, str, str]],
    about: tuple[bool | None, tuple[str, ...]],
    standing: Mapping[tuple[str, str], str],
) -> Row:
    how = standing.get((tool.server, tool.name), "unpinned") if tool.type == "mcp" else "operator"
    return Row(
        tool=tool.id,
        pattern=pattern,
        server=tool.server,
        protocol=tool.type,
        tool_class=tool.tool_class.value if tool.tool_class is not None else "",
        tier=tool.tier.value,
        labels=tool.labels,
        standing="" if pattern else how,
        classified=tool.tool_class is not None,
        calls=seen[tool.server, tool.name, tool.type],
        visible=about[0],
        rules=about[1],
    )


def _print(console: Console, rows: list[Row], agent: str) -> None:
    if not rows:
        put(console, Text("The configuration names no tools, and none were called."))
        return
    width = max(len(plain(row.tool, 60)) for row in rows)
    for row in rows:
        line = Text.assemble(
            (plain(row.tool, 60).ljust(width), "bold"), f"  {row.tool_class or 'unclassified':<12}  {row.tier:<8}"
        )
        line.append(f"  {row.standing:<8}", _HOW.get(row.standing, ""))
        if agent:
            line.append(f"  {_WORDS[row.visible]}", _STYLES[row.visible])
        facts = [*(["a pattern"] if row.pattern else []), *([counted(row.calls, "call")] if row.calls else [])]
        if row.labels:
            facts.append(f"results are {', '.join(row.labels)}")
        line.append(f"  {plain('; '.join(facts))}", "dim")
        line.rstrip()
        put(console, line, "    ", "")
        for rule in row.rules:
            put(console, Text(plain(rule)), "      ", "    - ")
    if agent:
        could = sum(row.visible is True for row in rows)
        put(
            console,
            Text(
                f"\n{counted(could, 'tool')} could be permitted to {plain(agent)}; each call is still decided by itself."
            ),
        )


_HOW: Final = {"unpinned": "yellow", "changed": "red", "pinned": "green"}
_WORDS: Final = {True: "possible", False: "refused ", None: "it depends"}
_STYLES: Final = {True: "green", False: "red", None: ""}
