"""``whygate demo``: one task of a dozen chained calls through a real gateway, and its story."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

from whygate.cli.demo_world import DemoFailed, World, shipped

GOAL: Final = "Ada's parcel came late (TICKET-4711): look into invoice 1042, make it right, note it in the repository."
JAEGER_UI: Final = "http://127.0.0.1:16686"
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
    _run_agent(world, task)
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


def _run_agent(world: World, task: dict[str, Any]) -> None:
    agent = shipped("agents_examples") / "support_agent.py"
    environment = {
        **os.environ,
        "WHYGATE_URL": world.agents_url,
        "WHYGATE_TOKEN": world.token("ada@example.com", act={"sub": "agent:support"}),
        "WHYGATE_TASK": task["id"],
        "TRACEPARENT": task["traceparent"],
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
