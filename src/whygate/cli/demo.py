"""``whygate demo``: one task of a dozen chained calls through a real gateway, and its story."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from whygate.cli.demo_people import Script, somebody_came
from whygate.cli.demo_world import DemoFailed, World, shipped

GOAL: Final = "Ada's parcel came late (TICKET-4711): look into invoice 1042, make it right, note it in the repository."
JAEGER_UI: Final = "http://127.0.0.1:16686"
COME_S: Final = 20.0
"""For somebody to open the link."""
AGENT_S: Final = 60.0


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards, to play with.")] = False,
) -> None:
    """Run an agent's task through a gateway in a temporary folder and tell its story. Needs no network and no model."""
    console = Console(soft_wrap=True, highlight=False)
    with tempfile.TemporaryDirectory(prefix="whygate-demo-") as folder:
        world = World(Path(folder))
        try:
            _play(world, console, keep=keep)
        except DemoFailed as failed:
            console.print(f"[bold red]The demo stopped:[/] {escape(str(failed))}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            console.print("\nStopped.")
        finally:
            world.close()


def _play(world: World, console: Console, *, keep: bool) -> None:
    began = time.monotonic()
    console.rule("[bold]1. A gateway between an agent and its tools", align="left")
    world.build()
    world.start()
    console.print(
        f"  agents call {world.agents_url}: two MCP servers (git, time) and a billing API over plain HTTP\n"
        f"  every decision is in {world.ledger.name} before anything happens"
    )
    task = world.open_task(GOAL, ["agent:support", "agent:researcher"])
    console.rule("[bold]2. Ada opens a task, and a support agent works on it", align="left")
    console.print(f"  [italic]“{GOAL}”[/]")
    script = _approver(world, console)
    try:
        with script.answering() if script is not None else contextlib.nullcontext():
            _run_agent(world, task)
        if script is not None:
            _emergency(world, console, task, script)
    finally:
        if script is not None:
            script.close()
    console.rule("[bold]3. The same task as the gateway recorded it", align="left")
    _whygate(world, console, "task", task["id"])
    console.print(
        "\nIts last call came with an expired token. Whoever can't prove who they are joins nobody's task;\n"
        "the refusal is recorded all the same:\n"
    )
    _whygate(world, console, "tail", "--no-follow", "-n", "1", "--code", "agent.token_expired")
    console.rule("[bold]4. Why was that refused?", align="left")
    _whygate(world, console, "why", _one_refusal(world, task["id"]))
    if world.otlp:
        console.print(f"\nThe whole task as one trace: {JAEGER_UI}/trace/{task['trace_id']}")
    else:
        console.print(
            "\nNo Jaeger listens on 127.0.0.1:4318. With one, the same story is a trace there: start it and run this again."
        )
    console.print(f"All of this took {time.monotonic() - began:.1f} s.")
    if keep:
        _keep(world, console, task)


def _approver(world: World, console: Console) -> Script | None:
    """Who answers what the agent needs a person for: you, in a browser, or a script that stands in for you."""
    link = world.owners_link()
    console.print(
        f"\n  A person will have to agree to some of it. You can: open [bold]{link}[/] (it works once)", soft_wrap=True
    )
    if sys.stdin.isatty() and console.is_terminal:
        console.print(f"  [dim]waiting {COME_S:.0f} s for you; then a script answers[/]")
        if somebody_came(world.ledger, COME_S):
            console.print("  You are Grace now, a finance lead. The inbox shows what the agent waits for.\n")
            return None
    console.print("  [yellow]Nobody came: a scripted approver, “Grace”, answers with a passkey in software.[/]\n")
    return Script(world.operators_url, world.console_url, link)


def _emergency(world: World, console: Console, task: dict[str, Any], script: Script) -> None:
    """A break-glass: loud, recorded, and reviewed by somebody else."""
    console.print(
        "\n  An emergency: Grace opens a break-glass for one tool, under an incident; each call is an exception"
    )
    script.break_glass("agent:support", "git/git_reset", "INC-42")
    headers = {
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {world.token('ada@example.com', act={'sub': 'agent:support'})}",
        "whygate-task": task["id"],
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "git_reset",
    }
    client = "io.modelcontextprotocol/"
    meta = {f"{client}protocolVersion": "2026-07-28", f"{client}clientCapabilities": {}}
    call = {"name": "git_reset", "arguments": {"repo_path": str(world.repository)}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    answer = httpx.post(f"{world.agents_url}/mcp/git", json=body, headers=headers, timeout=30)
    console.print(f"  git_reset: {answer.headers.get('whygate-outcome')}, {answer.headers.get('whygate-reason')}")
    script.close_glass()
    script.review()
    console.print("  closed; Heidi, who did not open it, has reviewed it")


def _run_agent(world: World, task: dict[str, Any]) -> None:
    agent = shipped("agents_examples") / "support_agent.py"
    environment = {
        **os.environ,
        "WHYGATE_URL": world.agents_url,
        "WHYGATE_TOKEN": world.token("ada@example.com", act={"sub": "agent:support"}),
        "WHYGATE_TASK": task["id"],
        "TRACEPARENT": task["traceparent"],
        "DEMO_WAIT_S": "45",
        "DEMO_REPOSITORY": str(world.repository),
        "DEMO_STALE_TOKEN": world.token("ada@example.com", act={"sub": "agent:support"}, expired=True),
    }
    try:
        code = subprocess.run([sys.executable, str(agent)], env=environment, timeout=AGENT_S, check=False).returncode  # noqa: S603  # our own example
    except subprocess.TimeoutExpired:
        raise DemoFailed(
            f"the agent did not finish within {AGENT_S:.0f} s; the gateway's log is below\n{_log(world)}"
        ) from None
    if code != 0:
        raise DemoFailed(f"the agent ended with {code}; the gateway's log is below\n{_log(world)}")


def _log(world: World) -> str:
    return world.log.read_text(errors="replace")[-4000:]


def _whygate(world: World, console: Console, *words: str) -> None:
    """Run the command a user would run, and show it."""
    console.print(f"  [dim]$ whygate {' '.join(words)}[/]\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "whygate", *words, "--ledger", str(world.ledger)], check=False)  # noqa: S603  # our own command


def _one_refusal(world: World, task_id: str) -> str:
    """The id of the refusal to ask about: the refund above the limit."""
    command = [sys.executable, "-m", "whygate", "task", task_id, "--ledger", str(world.ledger), "--json"]
    answer = subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own command
    calls = json.loads(answer.stdout)["calls"]
    refused = [call for call in calls if call["code"] == "args.limit_exceeded"]
    if not refused:
        raise DemoFailed("the refund above the limit was not refused; something is wrong")
    found: str = refused[0]["id"]
    return found


def _keep(world: World, console: Console, task: dict[str, Any]) -> None:
    token = world.token("ada@example.com", act={"sub": "agent:support"})
    console.rule("[bold]Still running; Ctrl-C ends it", align="left")
    console.print(
        f"  export WHYGATE_CONFIG={world.config}\n"
        f"  export WHYGATE_URL={world.agents_url} WHYGATE_TASK={task['id']}\n"
        f"  export WHYGATE_TOKEN={token}\n\n"
        "  whygate tail\n"
        '  curl -si -H "authorization: Bearer $WHYGATE_TOKEN" $WHYGATE_URL/http/billing/invoices/1042\n'
        f"  edit {world.folder / 'policies' / 'support-agent.yaml'}: it is in force a moment later"
    )
    while True:
        time.sleep(3600)
