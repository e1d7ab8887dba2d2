"""``whygate serve``: run the gateway until it is told to stop."""

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from whygate import __version__
from whygate.config import Config, ConfigError, load, weaknesses
from whygate.core.policy.errors import PolicyErrors
from whygate.flow.policies import counted
from whygate.flow.ports import LedgerUnavailable
from whygate.stores.keys import KeysRefused
from whygate.transport.server import AddressInUse
from whygate.wiring import Gateway

if sys.platform == "win32":
    run = asyncio.run
else:
    from uvloop import run  # twice asyncio's rate here; not made for Windows

BROKEN_S: Final = 5.0
"""For calls in flight when the ledger has failed: until the next start, nobody else is served."""
GC_THRESHOLD: Final = 50_000
"""Containers allocated between two young collections: some hundred calls' worth, a few MB."""


def serve(
    config: Annotated[
        Path, typer.Option("--config", "-c", envvar="WHYGATE_CONFIG", help="The configuration file.")
    ] = Path("whygate.yaml"),
) -> None:
    """Run the gateway: agents' listener, operators' listener, ledger and projector."""
    console = Console(stderr=True, soft_wrap=True)
    _log_to(console)
    try:
        settings = load(config, os.environ)
    except ConfigError as error:
        console.print(f"[bold red]The configuration can't be used.[/]\n{escape(str(error))}")
        raise typer.Exit(2) from None
    sys.exit(run(_run(settings, console)))


def _log_to(console: Console) -> None:
    """Colours for people; for files and journals one line for each message, however long."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, markup=False, rich_tracebacks=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


async def _run(config: Config, console: Console) -> int:
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    try:
        gateway = Gateway(config)
        # A signal that comes too early ends nothing and is not lost: the start reads the policies, and so does the watch.
        loop.add_signal_handler(signal.SIGHUP, gateway.look_at_policies)
        await gateway.start()
    except PolicyErrors as refused:
        console.print("[bold red]The policies can't be used; nothing was started.[/]")
        for error in refused.errors:
            console.print(f"  {escape(str(error))}")
        return 1
    except (ConfigError, KeysRefused, LedgerUnavailable, AddressInUse, OSError) as error:
        console.print(f"[bold red]Not started:[/] {escape(str(error))}")
        return 1
    # What lives as long as the process needs no looking at; the rest of the collector's work is then mostly for nothing
    # (calls make no cycles), and seldom is enough.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    _welcome(config, gateway, console)
    waiters = [asyncio.create_task(stop.wait()), asyncio.create_task(gateway.failed.wait())]
    await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()
    broken = gateway.failed.is_set()
    if broken:
        # A commit that reported an error is unknown, not absent: only a new start can read what is there.
        console.print("[bold red]The ledger failed; stopping. The next start reads what was written.[/]")
        loop.call_later(BROKEN_S, hurry.set)
    else:
        console.print("Stopping: calls in flight are finished first. A second signal cuts them off.")
    await gateway.stop(hurry)
    if not broken:
        console.print("Stopped.")
    return 1 if broken else 0


def _first_owner(config: Config, gateway: Gateway, console: Console) -> None:
    """The way in for the first owner of the console: shown to whoever started this, and kept out of logs."""
    link = gateway.owners_link()
    if not link:
        return
    if console.is_terminal:
        console.print(
            f"  [bold]console[/]    nobody owns it yet. Open this within 15 minutes, once:\n             {link}"
        )
        return
    path = Path(f"{config.ledger}.owner-link")
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(link + "\n")
    console.print(f"  console    nobody owns it yet: a link, good for 15 minutes and once, is in {escape(str(path))}")


def _welcome(config: Config, gateway: Gateway, console: Console) -> None:
    """What is configured, what is weak, and where to look."""
    console.print(f"[bold]whygate {__version__}[/] · deployment {escape(config.deployment)}")
    paths = [f"/{'mcp' if server.mcp else 'http'}/{name}" for name, server in sorted(config.tools.items())]
    if any(server.mcp for server in config.tools.values()):
        paths.insert(0, "/mcp (all of them)" if len(paths) > 1 else "/mcp")
    policies = gateway.reloader.held
    rows = [
        ("agents", f"{config.public_url}  {'  '.join(paths) or 'no tools are configured'}"),
        ("operators", f"http://{config.operators_listen}  /v1/tasks  /v1/policies  /readyz  /metrics  /schema"),
        ("console", f"{config.console_url}/console"),
        ("ledger", str(config.ledger)),
        ("policies", f"{config.policies}  {counted(policies.current)}"),
        ("spans", config.telemetry.otlp or "not exported (telemetry.otlp is not set)"),
    ]
    for name, text in rows:
        console.print(f"  {name:<10} {escape(text)}", highlight=False)
    if policies.refusal is not None:
        console.print("  [bold red]refused[/]    what this folder holds: the last good policies are in force")
    for weakness in weaknesses(config):
        console.print(f"  [yellow]weak[/]       {escape(weakness)}", highlight=False)
    _first_owner(config, gateway, console)
    console.print("Ready. Follow decisions with `whygate tail`; ask about one with `whygate why <id>`.")
