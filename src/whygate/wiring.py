"""The only file that knows everybody: a configuration becomes a running gateway.

Order of the start: configuration and secrets, keys, ledger (and with it ownership), policy, edges, listeners, projector.
Whatever fails on the way undoes what came before, and nothing listens until everything stands.
"""

import asyncio
import contextlib
import logging
import os
import platform
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from litestar import Litestar

from whygate import __version__
from whygate.api.app import Operators, create_app
from whygate.authn.door import Door
from whygate.channels.webhooks import Webhooks
from whygate.config import Config, split_address
from whygate.console.desk import Console
from whygate.core.events import Person
from whygate.flow.approvals import Approvals
from whygate.flow.authority import Authority
from whygate.flow.catalogue import Catalogue
from whygate.flow.desk import OwnDesk
from whygate.flow.elevations import Elevations
from whygate.flow.emergencies import Emergencies
from whygate.flow.fit import look_again, must_fit
from whygate.flow.gatekeeper import Gatekeeper, Surroundings
from whygate.flow.looking import Looker
from whygate.flow.people import ROLES, People
from whygate.flow.pins import Pins
from whygate.flow.policies import Cause, Policies
from whygate.flow.reloading import PinReloader, PolicyReloader
from whygate.flow.tasks import Tasks
from whygate.flow.world import RandomIds
from whygate.http.edge import HttpEdge
from whygate.mcp.backend import Server as McpServer
from whygate.mcp.looking import listed
from whygate.mcp.merged import MergedEdge
from whygate.mcp.own_tools import OwnTools
from whygate.policy_files import PinFolder, PolicyFolder
from whygate.serving import Listener, check
from whygate.stores.decisions import Decisions
from whygate.stores.keys import Keys, load_or_create
from whygate.stores.reader import Reader
from whygate.stores.sealing import Sealing
from whygate.stores.sqlite import SqliteLedger
from whygate.telemetry.metrics import Metrics
from whygate.telemetry.status import status_path
from whygate.transport.agents import METADATA, AgentsApp
from whygate.transport.origin import KnownHosts, Origins
from whygate.transport.server import HttpServer
from whygate.transport.under_way import UnderWay
from whygate.wiring_tools import (
    decision_of,
    documents,
    http_tools,
    inventory,
    listed_tools,
    mcp_servers,
    named,
    receivers,
    shown_agent,
    switched,
)

PROJECTOR_RESTART_S: Final = 2.0
"""A projector that dies is started again; the ledger keeps everything meanwhile."""
PROJECTOR_DRAIN_S: Final = 5.0

DRAIN_S: Final = 20.0
"""For calls in flight. Orchestrators kill after 30 s; tools' processes and the projector take up to ten of them."""

_log = logging.getLogger("whygate")


class Gateway:
    """A gateway that is being built, runs, or is being stopped. Use ``start`` and ``stop`` once each."""

    def __init__(self, config: Config) -> None:
        """Raises ``ConfigError`` for an OpenAPI document that can't be used."""
        self.config = config
        self.failed = asyncio.Event()
        """Set when the ledger can't go on: the process has to end, so that its next start re-reads the tail."""
        self._undo = contextlib.AsyncExitStack()
        self.reloader: PolicyReloader
        """The policies in force, and the way to new ones; there once ``start`` has returned."""
        self.pins: PinReloader
        """The same for the pins."""
        self.authority: Authority
        """What is in force beside the policy; there as well once ``start`` has returned."""
        self._looking = False
        self._phase = "the gateway is starting"
        """Why it is not ready yet, or not any more; empty in between."""
        self._hurry = asyncio.Event()
        self.documents = documents(config)
        self.catalogue = Catalogue(
            {name: listed_tools(name, server, self.documents.get(name)) for name, server in config.tools.items()}
        )

    async def start(self) -> None:
        """Raises ``ConfigError``, ``KeysRefused``, ``LedgerUnavailable``, ``PolicyErrors`` or ``AddressInUse``."""
        try:
            await self._start()
        except BaseException:
            await self._undo.aclose()
            raise

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Say so at ``/readyz``, refuse new connections, finish calls in flight, write the stop record, let go of the ledger.

        Calls that have not ended within ``DRAIN_S``, or when ``hurry`` is set, are cut off, and recorded as that.
        """
        self._phase = "the gateway is stopping"
        self._hurry = hurry or self._hurry
        await self._undo.aclose()

    def look_at_policies(self) -> None:
        """Have the policy folder looked at now; for a signal. Before the start is through, it is looked at anyway."""
        if self._looking:
            self.pins.soon(Cause.SIGNAL)
            self.reloader.soon(Cause.SIGNAL)

    async def _start(self) -> None:
        config = self.config
        operators = _Late()
        for address in (config.listen, config.operators_listen):
            check(address)
        server = HttpServer(None, config.listen)
        # Operators first and so stopped last: they can see what it is doing.
        listeners = (Listener(operators, config.operators_listen, lifespan=True), server)
        new_ids = RandomIds()
        path = Path(config.ledger)
        folder = path.parent / f"{path.name}.keys"
        if _begins_anew(path, folder):
            _log.warning(
                "the ledger %s begins anew, though there was one: if nobody meant that, stop, put it back", path
            )
        keys = load_or_create(folder)
        ledger = self._own_ledger(path, keys)
        servers = mcp_servers(config)
        reloader = await self._read_folders(ledger, path, new_ids)
        policies = reloader.held
        metrics = Metrics(
            version=__version__,
            policy=lambda: (reloader.loaded_s, policies.refusal is not None),
            newest=lambda: ledger.newest,
            failed=lambda: bool(_missing(ledger)),
            projector=status_path(path) if config.telemetry.otlp else None,
        )
        authority = self.authority = await self._authority(ledger, path, keys, new_ids)
        tasks = Tasks(ledger, ledger, new_ids, keys.trace, keys.digest)
        gate = Gatekeeper(
            Surroundings(
                ledger=ledger,
                policies=policies,
                tasks=tasks,
                authority=authority,
                catalogue=self.catalogue,
                clock=ledger,
                ids=new_ids,
                digest_key=keys.digest,
                observer=metrics,
                console=config.console_url,
                deployment=config.deployment,
            )
        )
        self._undo.push_async_callback(gate.strangers.close)
        self._undo.push_async_callback(gate.overdrawn.close)
        door = Door.from_config(config, ledger)
        self._undo.push_async_callback(door.close)
        metadata = config.public_url.rstrip("/") + METADATA
        desk = OwnDesk(authority, policies, tasks, lambda name: decision_of(path, name), config.console_url)
        edges = server.app = await self._edges((door, gate, metrics, desk), metadata, servers)
        operators.app = KnownHosts(
            self._operators(ledger, door, gate, tasks, metrics), [config.operators_listen, *config.allowed_hosts]
        )
        if config.telemetry.otlp:
            projector = asyncio.create_task(self._project(config.telemetry.otlp))
            self._undo.push_async_callback(_cancelled, projector)
        self._watch(servers)
        hooks = Webhooks(receivers(config), authority, config.console_url.rstrip("/"))
        hooks.start()
        self._undo.push_async_callback(hooks.close)
        self._looking = True
        for listener in listeners:
            await listener.start()
            self._undo.push_async_callback(listener.stop)
        self._undo.push_async_callback(self._drain, server, edges.under_way)
        self._phase = ""

    def _operators(
        self, ledger: SqliteLedger, door: Door, gate: Gatekeeper, tasks: Tasks, metrics: Metrics
    ) -> Litestar:
        """What operators reach."""
        authority, metadata = self.authority, self.config.public_url.rstrip("/") + METADATA
        around = Operators(
            identifier=door,
            gate=gate,
            tasks=tasks,
            reloader=self.reloader,
            pins=self.pins,
            catalogue=self.catalogue,
            authority=authority,
            approvals=Approvals(authority),
            elevations=Elevations(authority),
            emergencies=Emergencies(authority),
            decisions=Decisions(Path(self.config.ledger)),
            inventory=inventory(self.config),
            console=self.config.console_url.rstrip("/"),
            pages=self._console(gate),
            metrics=metrics.render,
            ready=lambda: self._phase or _missing(ledger),
            task_openers=self.config.identities.task_openers,
            resource_metadata=metadata,
        )
        return create_app(around)

    def _console(self, gate: Gatekeeper) -> Console:
        """Where people answer."""
        config = self.config
        self.people = People(self.authority, (named(each) for each in config.identities.people))
        made = Console(
            authority=self.authority,
            gate=gate,
            people=self.people,
            policies=self.reloader.held,
            catalogue=self.catalogue,
            agents={each.id: shown_agent(each) for each in config.identities.agents},
            ledger=Path(config.ledger),
            url=config.console_url.rstrip("/"),
            jaeger=(config.telemetry.jaeger or "").rstrip("/"),
        )
        self._undo.callback(made.close)
        return made

    def owners_link(self) -> str:
        """The one-time link that makes the first owner; empty where there is one."""
        if self.people.has_owner():
            return ""
        owners = (named(each) for each in self.config.identities.people if "owner" in each.roles)
        token = self.people.invite(next(owners, Person(id="owner", name="Owner", roles=ROLES)))
        return f"{self.config.console_url.rstrip('/')}/console/enrol?token={token}"

    async def _authority(self, ledger: SqliteLedger, path: Path, keys: Keys, new_ids: RandomIds) -> Authority:
        """What is in force beside the policy, as the ledger has it, and the look at what runs out."""
        made = Authority(ledger, ledger, new_ids, Sealing(keys.payload), keys.digest)
        with Reader(path) as reader:
            made.recall(reader.sealed)
        self._undo.push_async_callback(_cancelled, asyncio.create_task(made.watch()))
        return made

    async def _drain(self, agents: HttpServer, under_way: UnderWay) -> None:
        agents.refuse()
        if cut := await under_way.finish(DRAIN_S, self._hurry):
            _log.warning("%d calls had not ended and were cut off", cut)

    async def _read_folders(self, ledger: SqliteLedger, path: Path, new_ids: RandomIds) -> PolicyReloader:
        """Pins first: policies are held to them. Raises ``PolicyErrors`` and ``LedgerUnavailable``."""
        one_at_a_time = asyncio.Lock()
        pins = Pins(ledger, ledger, new_ids, self.catalogue)
        self._undo.push_async_callback(pins.finish)
        self.pins = PinReloader(pins, PinFolder(self.config.pins), one_at_a_time)
        await self.pins.start()
        policies = Policies(ledger, new_ids, lambda loaded: must_fit(loaded, self.catalogue))
        self.reloader = PolicyReloader(policies, PolicyFolder(self.config.policies), one_at_a_time)
        await self.reloader.start(lambda digest: _kept(path, digest), ledger.policy_in_force())
        return self.reloader

    def _watch(self, servers: Mapping[str, McpServer]) -> None:
        """From now on, look at the folders, and at what servers say of their tools."""
        for folder in (self.reloader, self.pins):
            self._undo.push_async_callback(folder.finish)
            self._undo.push_async_callback(_cancelled, asyncio.create_task(folder.watch()))
        looker = Looker(servers, lambda name: listed(servers[name]), self.catalogue)
        self._undo.push_async_callback(_cancelled, asyncio.create_task(looker.watch()))
        self.catalogue.stirred = looker.soon
        self.pins.held.after = lambda: look_again(looker, self.reloader, self.catalogue)

    def _own_ledger(self, path: Path, keys: Keys) -> SqliteLedger:
        """The ledger, open for writing; its failure ends the gateway."""
        loop = asyncio.get_running_loop()

        def tell_failed(reason: str) -> None:
            _log.critical("the ledger can't go on: %s", reason)
            loop.call_soon_threadsafe(self.failed.set)

        ledger = SqliteLedger(path, start=_start_data(self.config, keys), on_failed=tell_failed)
        self._undo.push_async_callback(asyncio.to_thread, ledger.close)
        if ledger.scarce:
            _log.critical("%s; until then every call is refused", _missing(ledger))
        return ledger

    async def _edges(
        self, parts: tuple[Door, Gatekeeper, Metrics, OwnDesk], metadata: str, servers: Mapping[str, McpServer]
    ) -> AgentsApp:
        """What agents reach. ``metadata`` is the address that challenges point to."""
        door, gate, metrics, desk = parts
        config = self.config
        origins = Origins(config.public_url, config.listen, config.allowed_hosts, config.allowed_origins)
        http = HttpEdge(http_tools(config, self.catalogue, self.documents), door, gate, origins, metadata)
        self._undo.push_async_callback(http.close)
        each = metadata + "/mcp/{server}"
        mcp = MergedEdge(servers, door, gate, self.catalogue, origins=origins, resource_metadata=each)
        mcp.offer(OwnTools(desk))
        self.authority.heard.append(lambda record: switched(record, mcp.crowd))
        await mcp.start()
        self._undo.push_async_callback(mcp.close)

        def shed() -> None:
            metrics.shed()
            gate.strangers.shed()

        issuers = [one.issuer for one in config.identities.issuers]
        return AgentsApp(mcp, http, config.public_url, issuers, shed=shed)

    async def _project(self, otlp: str) -> None:
        """Keep the projector's process running; on the way out, give it a moment to send what is left."""
        command = [sys.executable, "-m", "whygate.projector_main", "--ledger", str(self.config.ledger), "--otlp", otlp]
        command += ["--service", self.config.telemetry.service_name]
        while True:
            process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                if process.stdin is not None:
                    process.stdin.close()
                try:
                    await asyncio.wait_for(process.wait(), PROJECTOR_DRAIN_S)
                except TimeoutError:
                    process.kill()
                raise
            _log.warning("the projector ended with %s; starting it again", code)
            await asyncio.sleep(PROJECTOR_RESTART_S)


class _Late:
    """An ASGI application that is filled in before its listener starts: addresses are checked first of all."""

    app: Callable[..., Any]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def _begins_anew(ledger: Path, keys: Path) -> bool:
    return keys.exists() and not ledger.exists()


def _missing(ledger: SqliteLedger) -> str:
    """What keeps calls from being decided and recorded, in words for operators; empty where nothing does."""
    if ledger.failed is not None:
        return "the ledger can't write"
    return "the ledger's disk is nearly full: make room, and decisions are recorded again" if ledger.scarce else ""


def _kept(ledger: Path, digest: str) -> dict[str, str]:
    """The texts of a policy set that was in force once."""
    with Reader(ledger) as reader:
        return reader.policy(digest)


def _start_data(config: Config, keys: Keys) -> dict[str, Any]:
    """What the ledger's ``start`` record tells."""
    return {
        "version": __version__,
        "config": config.digest,
        "deployment": config.deployment,
        "host": socket.gethostname(),
        "ip": split_address(config.listen)[0],
        "keys": keys.fingerprints(),
        "pid": os.getpid(),
        "python": platform.python_version(),
    }


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
