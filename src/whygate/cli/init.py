"""``whygate init``: a configuration that works at once, says what each line is for, and can be read in a minute."""

import getpass
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
import yaml
from rich.console import Console
from rich.markup import escape

from whygate.authn import api_key
from whygate.cli.keys import new_key
from whygate.config import ConfigError, from_mapping, load

CONFIG: Final = """\
# whygate: who may call, which tools there are, and where things are kept.
# Every setting: docs/configuration.md. Each can be set from outside, too: WHYGATE_LISTEN, WHYGATE_TELEMETRY__OTLP, ...

deployment: local
listen: 127.0.0.1:8700             # agents call here
operators_listen: 127.0.0.1:8701   # you look here: health, metrics, tasks
ledger: ./whygate.db               # every decision, before anything happens
policies: ./policies               # what agents may do, and why
pins: ./pins                       # the definitions of MCP tools that you accepted; others are refused

identities:
  agents:
    - id: {agent}
      type: ai_agent
      owner: {owner}
      purpose: Trying out whygate.
      roles: [starter]             # policies/starter.yaml says what this role may do
      # The hash of the key that `whygate init` showed. Another one: whygate keys new --agent ID
      api_keys: ["{stored}"]

  # Agents and people with tokens of your identity provider:
  # issuers:
  #   - issuer: https://idp.example
  #     audiences: [http://127.0.0.1:8700]
  #     jwks: https://idp.example/.well-known/jwks.json
  #     algorithms: [ES256, RS256]
  #     unlisted_as: human         # without this line, only the agents above may come with its tokens
  # task_openers: ["role:host"]    # who besides people may open tasks

tools:
  # An MCP server that whygate starts itself. Its tools get the names time/get_current_time and time/convert_time.
  time:
    mcp:
      command: [{python}, -m, mcp_server_time]
    tools:
      # What your word on a tool is worth: without it, it counts as high tier with untrusted results.
      get_current_time: {{class: read, tier: low, labels: []}}
      convert_time: {{class: read, tier: low, labels: []}}

  # Another one, and one that runs elsewhere:
  # git:
  #   mcp: {{command: [{python}, -m, mcp_server_git, --repository, ./some/checkout]}}
  #   tools: {{"git_*": {{class: read, tier: medium}}, git_commit: {{class: write, tier: medium}}}}
  # tickets:
  #   mcp:
  #     url: https://tickets.example/mcp
  #     credential: {{header: Authorization, prefix: "Bearer ", value: "env:TICKETS_TOKEN"}}

  # A plain HTTP API; agents call http://127.0.0.1:8700/http/billing/invoices/1042:
  # billing:
  #   http:
  #     url: http://127.0.0.1:9000
  #     credential: {{header: Authorization, prefix: "Bearer ", value: "env:BILLING_TOKEN"}}
  #   operations:
  #     - {{name: invoice_get, method: GET, path: "/invoices/{{invoice_id}}", class: read, tier: low, labels: []}}
  #     - {{name: refund, method: POST, path: "/invoices/{{invoice_id}}/refunds", class: spend, tier: high}}

# Traces in Jaeger: docker run -p 16686:16686 -p 4318:4318 jaegertracing/jaeger, then open http://127.0.0.1:16686
# telemetry: {{otlp: http://127.0.0.1:4318}}
"""

POLICY: Final = """\
# What agents with the role `starter` may do. What no rule permits is refused; a denial wins over any permit.
policy: starter
version: 1
owner: {owner}
agents: ["role:starter"]
mode: enforce
rules:
  - id: know-the-time
    tools: [time/get_current_time]
    permit: {{}}
    why: The time is public.

  - id: convert-time
    tools: [time/convert_time]
    when: args.source_timezone != args.target_timezone
    permit: {{}}
    why: Converting between two zones is harmless.

# Checked by `whygate policy test`: a rule that is changed by mistake shows here before it shows in production.
tests:
  - given: {{tool: time/get_current_time, args: {{timezone: Europe/Berlin}}}}
    expect: {{outcome: permitted, rule: know-the-time}}
  - given:
      tool: time/convert_time
      args: {{source_timezone: Europe/Berlin, time: "12:00", target_timezone: Asia/Tokyo}}
    expect: {{outcome: permitted, rule: convert-time}}
  - given:
      tool: time/convert_time
      args: {{source_timezone: Europe/Berlin, time: "12:00", target_timezone: Europe/Berlin}}
    expect: {{outcome: blocked, code: policy.no_match}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """What ``write_starter`` made."""

    config: Path
    policy: Path
    agent: str
    api_key: str = field(repr=False)
    url: str


def write_starter(folder: Path, *, agent: str, owner: str, force: bool = False) -> Starter:
    """Write ``whygate.yaml`` and ``policies/starter.yaml`` into ``folder``, with one new API key stored as its hash.

    Raises ``FileExistsError`` where one of them is there and ``force`` is not set (nothing is written then), and
    ``ConfigError`` where the agent's id or owner can't be used.
    """
    key = new_key()
    words = {
        "agent": json.dumps(agent, ensure_ascii=False),
        "owner": json.dumps(owner, ensure_ascii=False),
        "python": json.dumps(sys.executable or "python"),
        "stored": api_key.stored(key),
    }
    texts = {folder / "whygate.yaml": CONFIG, folder / "policies" / "starter.yaml": POLICY}
    written: Mapping[Path, str] = {path: text.format(**words) for path, text in texts.items()}
    config, policy = written
    checked = from_mapping(yaml.safe_load(written[config]), folder)
    there = [path for path in written if path.exists()]
    if there and not force:
        raise FileExistsError(there[0])
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Starter(config=config, policy=policy, agent=agent, api_key=key, url=f"{checked.public_url}/mcp/time")


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write.", file_okay=False)] = Path(),
    agent: Annotated[str, typer.Option("--agent", help="The id of the first agent.")] = "agent:first",
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it. Default: your user name.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a starter configuration and policy, with an API key for one agent."""
    errors = Console(stderr=True, soft_wrap=True)
    try:
        made = write_starter(folder, agent=agent, owner=owner or _user(), force=force)
    except FileExistsError as error:
        errors.print(f"[red]{escape(str(error))} is there already.[/] Nothing was written; --force overwrites it.")
        raise typer.Exit(1) from None
    except ConfigError as error:
        for problem in error.problems:
            errors.print(f"[red]{escape(problem.key)}[/] {escape(problem.what)}; {escape(problem.fix)}")
        raise typer.Exit(2) from None
    except OSError as error:
        errors.print(f"[red]{escape(str(error.filename))} can't be written:[/] {escape(error.strerror or '')}")
        raise typer.Exit(1) from None
    unpinned = _pin(made, f"whygate init, for {owner or _user()}")
    if as_json:
        paths = {"config": str(made.config), "policy": str(made.policy)}
        print(
            json.dumps({**paths, "agent": made.agent, "api_key": made.api_key, "url": made.url, "unpinned": unpinned})
        )
        return
    _next_steps(made, unpinned)


def _pin(made: Starter, by: str) -> str:
    """Accept what the servers of the starter say of their tools; why that was not possible, empty where it was."""
    # The gateway's whole machinery is needed for it, and for nothing else here.
    from whygate.cli.pinning import accept_all  # noqa: PLC0415  see the line above

    looked = accept_all(load(made.config), by)
    return "; ".join(f"{each.server} {each.failed}" for each in looked if each.failed)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number that has no name
        return "nobody named yet"


def _next_steps(made: Starter, unpinned: str) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"Written: [bold]{escape(str(made.config))}[/] and [bold]{escape(str(made.policy))}[/]")
    if not unpinned:
        pin = made.config.parent / "pins" / "time.json"
        console.print(f"Pinned: [bold]{escape(str(pin))}[/], the tools of `time` as it describes them now")
    console.print(
        f"\nThe API key of [bold]{escape(made.agent)}[/]. It is shown this once; the file keeps only its hash:\n"
    )
    print(f"  {made.api_key}\n")
    console.print("Next:")
    console.print(f"  1. Start the gateway:  [bold]whygate serve --config {escape(str(made.config))}[/]")
    console.print("  2. Point an agent at it. For an MCP client that reads a file of servers:\n")
    # Plain: markup and wrapping would end up in the client's file. The key stays out of what gets pasted and committed.
    print('     "time": {"url": "' + made.url + '", "headers": {"Authorization": "Bearer <the key>"}}\n')
    console.print(f"  3. Say what it may do, and why:  [bold]{escape(str(made.policy))}[/]")
    console.print(f"     and check that it does:  [bold]whygate policy test {escape(str(made.policy.parent))}[/]")
    if unpinned:
        console.print(f"\n[yellow]Its tools are not pinned yet, so calls are refused:[/] {escape(unpinned)}")
        console.print("The `time` server needs the package mcp-server-time:  pip install 'whygate\\[demo]'")
        console.print(f"Then:  [bold]whygate tools pin --config {escape(str(made.config))}[/]")
