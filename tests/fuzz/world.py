"""A whole gateway inside one process, without a socket: the real edges, gatekeeper, door, tasks and policies, on the fake
ledger and before fake tools. What a tool would get is what the real HTTP client made of it.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec
from joserfc.jwk import ECKey
from tests.fuzz.answers import Told, told
from tests.fuzz.inputs import LIVE, Input, Known
from tests.fuzz.setting import DIGEST_KEY, ISSUER, POLICY, TOOLS_SECRET, TYPED, known, pins, settings
from tests.gatekeeping import Seen

from whygate import wiring_tools
from whygate.authn.door import Door
from whygate.config import from_mapping
from whygate.core.calls import ToolCall
from whygate.core.ids import span_id
from whygate.core.reasons import Code
from whygate.flow.catalogue import Catalogue
from whygate.flow.gatekeeper import Gatekeeper, Surroundings
from whygate.flow.policies import Policies
from whygate.flow.ports import Admission, Completion
from whygate.flow.tasks import Tasks
from whygate.flow.world import RandomIds
from whygate.http.edge import HttpEdge
from whygate.mcp import asked, watch, wire
from whygate.mcp.conversation import Conversation
from whygate.mcp.merged import MergedEdge
from whygate.testing.authority import authority
from whygate.testing.ledger import MemoryLedger
from whygate.transport.agents import METADATA, AgentsApp
from whygate.transport.origin import Origins
from whygate.transport.upstream import UpstreamError, Upstreams

STREAM_S: Final = 0.002
"""How long a client here stays with a stream."""


class Sent(NamedTuple):
    """What reached a tool."""

    server: str
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes
    decision: str
    """Of the durable decision that allows it, by the trace context it came with; empty where there is none."""


class Ran(NamedTuple):
    """One input and everything that came of it."""

    input: Input
    status: int
    """0: nothing was answered."""
    headers: dict[str, str]
    body: bytes
    ended: bool
    sent: list[Sent]
    calls: list[tuple[ToolCall, Admission]]
    glanced: list[ToolCall]
    """What was decided, and is recorded only where it is refused."""
    leaves: list[bytes]
    """Records that became durable meanwhile."""
    logged: list[str]
    """Lines of the log that tell of something unforeseen."""


class _Unforeseen(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.lines.append(logging.Formatter().format(record))


class _Gate:
    """The real gatekeeper, with a look at what it was asked."""

    def __init__(self, inner: Gatekeeper) -> None:
        self._inner = inner
        self.calls: list[tuple[ToolCall, Admission]] = []
        self.glanced: list[ToolCall] = []

    async def admit(self, call: ToolCall) -> Admission:
        admission = await self._inner.admit(call)
        self.calls.append((call, admission))
        return admission

    async def glance(self, call: ToolCall) -> Admission | None:
        admission = await self._inner.glance(call)
        if admission is None:
            self.glanced.append(call)
        else:
            self.calls.append((call, admission))
        return admission

    def complete(self, admission: Admission, completion: Completion) -> None:
        self._inner.complete(admission, completion)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _cancelling() -> list["asyncio.Task[object]"]:
    """What tells servers that nobody waits for a request any more."""
    name = Conversation._cancel.__qualname__
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == name]


class World:
    """Make with ``await World.make(folder)``; may be used for any number of inputs, one after the other."""

    app: AgentsApp
    _edge: MergedEdge
    known: Known

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        self.sent: list[Sent] = []
        self.allowed: dict[tuple[str, str], str] = {}
        self._looked = 0
        self.choice = 0
        self.log = _Unforeseen()
        self._undo: list[Callable[[], Any]] = []

    @classmethod
    async def make(cls, folder: Path) -> "World":
        self = cls()
        key = ECKey.generate_key("P-256", {"kid": "test-1", "use": "sig", "alg": "ES256"})
        (folder / "jwks.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
        (folder / "typed.json").write_text(json.dumps(TYPED))
        (folder / "secret").write_text(TOOLS_SECRET)
        config = from_mapping(settings(folder))
        documents = wiring_tools.documents(config)
        listed = {name: wiring_tools.listed_tools(name, one, documents.get(name)) for name, one in config.tools.items()}
        catalogue, new_ids = Catalogue(listed, pins()), RandomIds()
        policies = Policies(self.ledger, new_ids)
        await policies.bring_into_force({"fuzz.yaml": POLICY})
        tasks = Tasks(self.ledger, self.ledger, new_ids, b"t" * 32, DIGEST_KEY)
        around = Surroundings(
            ledger=self.ledger,
            policies=policies,
            tasks=tasks,
            authority=authority(self.ledger, self.ledger, new_ids, DIGEST_KEY),
            catalogue=catalogue,
            clock=self.ledger,
            ids=new_ids,
            digest_key=DIGEST_KEY,
            observer=Seen(),
        )
        self.seen = around.observer
        gatekeeper = Gatekeeper(around)
        self.gate = _Gate(gatekeeper)
        door = Door.from_config(config, self.ledger)
        origins = Origins(config.public_url, config.listen)
        metadata = config.public_url + METADATA
        http = HttpEdge(wiring_tools.http_tools(config, catalogue, documents), door, self.gate, origins, metadata)
        http._upstreams = _Pool(self)  # type: ignore[assignment]  # a fake pool
        servers = wiring_tools.mcp_servers(config)
        mcp = MergedEdge(
            servers, door, self.gate, catalogue, origins=origins, resource_metadata=metadata + "/mcp/{server}"
        )
        wire.Process, process = _process(self), wire.Process  # type: ignore[misc]  # a fake process
        asked._RETRY_S, asked.RESUMES, retry = 0.0, 2, (asked._RETRY_S, asked.RESUMES)  # type: ignore[misc]  # nor here
        watch.GRACE_S, grace = 0.0, watch.GRACE_S  # type: ignore[misc]  # nobody has time
        await mcp.start()
        mcp._backends["up"]._upstreams = _Pool(self)  # type: ignore[attr-defined]  # a fake pool
        self._edge = mcp
        self.processes: Any = mcp._backends["piped"]
        self.app = AgentsApp(mcp, http, config.public_url, [ISSUER])
        self.known = await known(tasks, key)
        logging.getLogger("whygate").addHandler(self.log)
        self._undo = [mcp.close, door.close, gatekeeper.strangers.close, lambda: setattr(wire, "Process", process)]
        self._undo.append(lambda: setattr(watch, "GRACE_S", grace))
        self._undo += [lambda: setattr(asked, "_RETRY_S", retry[0]), lambda: setattr(asked, "RESUMES", retry[1])]
        return self

    async def close(self) -> None:
        logging.getLogger("whygate").removeHandler(self.log)
        for undo in self._undo:
            done = undo()
            if done is not None:
                await done

    def decision_of(self, traceparent: str) -> str:
        """The id of the durable decision that allowed the call with this trace context."""
        self.look()
        parts = traceparent.split("-")
        return self.allowed.get((parts[1], parts[2]), "") if len(parts) == 4 else ""

    def look(self) -> None:
        for leaf in self.ledger.disk.leaves[self._looked :]:
            record = msgspec.json.decode(leaf)
            if record["kind"] == "decision" and record["effect"] == "allow":
                self.allowed[record["context"]["trace_id"], span_id("client", record["id"])] = record["id"]
        self._looked = len(self.ledger.disk.leaves)

    def _with_session(self, given: Input) -> Input:
        """The input with a session's id in place of ``LIVE``."""
        live = LIVE.encode()
        if all(value != live for _, value in given.headers):
            return given
        session = next(iter(self.processes._sessions), "none").encode()
        return given._replace(headers=[(name, session if value == live else value) for name, value in given.headers])

    async def run(self, given: Input) -> Ran:
        """Send the input through the agents' listener."""
        self.choice = given.upstream
        self.sent, self.gate.calls, self.gate.glanced, self.log.lines = [], [], [], []
        self.ledger.disk.leaves.clear()
        self._looked = 0
        self.allowed.clear()
        self.seen.decisions.clear()  # type: ignore[attr-defined]  # the fake observer's
        self.seen.completions.clear()  # type: ignore[attr-defined]  # the fake observer's
        client = _Client(self._with_session(given))
        broken = False
        try:
            async with asyncio.timeout(30):
                await self.app(client.scope(), client.receive, client.send)
        except UpstreamError:
            # How the plain HTTP edge breaks off an answer that had begun: the server then closes the connection.
            assert client.status, "an error left the edge before it had answered"
            broken = True
        # What is told to a server in the client's place is part of this input, and of no other.
        await asyncio.gather(*self._edge._questions._answering)
        while tasks := _cancelling():
            await asyncio.wait(tasks)
        return Ran(
            given, client.status, client.headers, bytes(client.body), client.ended or broken, self.sent, self.gate.calls,
            self.gate.glanced, list(self.ledger.disk.leaves), self.log.lines,
        )  # fmt: skip


class _Client:
    """The agent's end, as the HTTP server shows it to us."""

    def __init__(self, given: Input) -> None:
        self._given = given
        self._left = _pieces(given)
        self.status, self.headers, self.body, self.ended = 0, dict[str, str](), bytearray(), False

    def scope(self) -> dict[str, Any]:
        given = self._given
        return {
            "type": "http", "method": given.method, "path": given.target.decode("latin-1"), "raw_path": given.target,
            "query_string": given.query, "headers": list(given.headers), "client": ("10.9.8.7", 1), "http_version": "1.1",
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        if self._left:
            return self._left.pop(0)
        if not self._given.leaves and self._given.method != "GET":
            await asyncio.get_running_loop().create_future()
        # Streams end when the client has had enough of them.
        await asyncio.sleep(STREAM_S)
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.status, "two answers"
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            return
        assert self.status, "a body before its head"
        assert not self.ended, "more after the end"
        self.body += message.get("body", b"")
        self.ended = not message.get("more_body", False)


def _pieces(given: Input) -> list[dict[str, Any]]:
    if given.pieces == 0:
        half = given.body[: len(given.body) // 2]
        return [{"type": "http.request", "body": half, "more_body": True}, {"type": "http.disconnect"}]
    size = max(1, -(-len(given.body) // given.pieces))
    parts = [given.body[at : at + size] for at in range(0, len(given.body), size)] or [b""]
    made = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    made[-1]["more_body"] = False
    return made


class _Pool:
    """In the place of ``transport.upstream.Upstreams``: its requests are built by the real client, and never sent."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._real = Upstreams()

    def send(self, method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> "_Sending":
        sending = self._real.send(method, url, headers, body)
        head, _, rest = sending._request.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        got = [(name.lower(), value) for name, _, value in (each.partition(": ") for each in lines)]
        verb, target, version = line.split(" ")
        assert version == "HTTP/1.1"
        assert [value for name, value in got if name == "content-length"] in ([], [str(len(rest))])
        return _Sending(self._world, verb, f"http://{dict(got)['host']}{target}", got, rest)

    async def close(self) -> None:
        """Nothing was opened."""


class _Sending:
    def __init__(self, world: World, method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self._world, self._method, self._url, self._headers, self._body = world, method, url, headers, body

    async def __aenter__(self) -> "_Answer":
        world = self._world
        parents = [value for name, value in self._headers if name.lower() == "traceparent"]
        decision = world.decision_of(parents[0]) if len(parents) == 1 else ""
        server = "up" if "mcp.tools.test" in self._url else "http"
        world.sent.append(Sent(server, self._method, self._url, self._headers, self._body, decision))
        answer = told(world.choice, server == "up", self._body)
        if answer.fails is not None and not answer.chunks:
            raise answer.fails
        return _Answer(answer)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class _Answer:
    def __init__(self, answer: Told) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = answer.headers
        self.raw_headers = [(name.encode(), value.encode()) for name, value in answer.headers]
        self.media_type = dict(answer.headers).get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._answer.chunks:
            yield chunk
        if self._answer.fails is not None:
            raise self._answer.fails

    async def read(self, cap_bytes: int) -> bytes:
        whole = b"".join([chunk async for chunk in self.chunks()])
        if len(whole) > cap_bytes:
            raise UpstreamError(Code.RESULT_TOO_LARGE, "too large")
        return whole


def _process(world: World) -> Any:
    class Process:
        """A child that answers in the moment it is written to."""

        def __init__(self, server: Any, on_line: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
            self._on_line = on_line

        async def start(self) -> None:
            return None

        async def stop(self) -> None:
            return None

        async def write(self, message: bytes) -> None:
            try:
                parent = json.loads(message)["params"]["_meta"]["traceparent"]
            except (ValueError, KeyError, TypeError, RecursionError):
                parent = ""
            decision = world.decision_of(parent) if isinstance(parent, str) else ""
            world.sent.append(Sent("piped", "", "", [], message, decision))
            answer = told(350 if world.choice % 3 else 353, True, message)
            for chunk in answer.chunks if json.loads(message).get("id") is not None else ():
                self._on_line(chunk)

    return Process
