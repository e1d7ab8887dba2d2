"""A real ``whygate serve`` in a process of its own, callers that keep it busy, and a look at its ledger without its code.

What callers were told and what the tool saw is kept here; ``Found`` reads the SQLite file with the standard library alone
and holds both against it.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.servers.gateway import Tokens, billing_tool, settings

from whygate.core.ids import span_id
from whygate.testing.billing import BillingServer

READY_S = 60.0


class Served:
    """A gateway's folder, and what became of the calls that were made through it."""

    def __init__(self, folder: Path, billing: BillingServer, **changed: Any) -> None:
        self.folder = folder
        self.tokens = Tokens()
        self.billing = billing
        (folder / "jwks.json").write_text(json.dumps(self.tokens.jwks()))
        tools = {"billing": billing_tool(billing, folder)} | changed.pop("tools", {})
        self.config = settings(folder, tools, **changed)
        (folder / "whygate.yaml").write_text(yaml.safe_dump(self.config))
        self.ledger = Path(self.config["ledger"])
        self.url = f"http://{self.config['listen']}"
        self.operators_url = f"http://{self.config['operators_listen']}"
        self.acknowledged: dict[str, int] = {}
        """Decisions whose answer a client has seen, and its status."""
        self.unavailable = 0
        """Answers of 503 ``audit.unavailable``."""
        self.broken = 0
        """Calls whose connection broke: what became of them nobody was told."""
        self._waiters: list[tuple[int, asyncio.Event]] = []

    @property
    def said(self) -> str:
        """Everything that all its starts wrote."""
        return (self.folder / "gateway.log").read_text()

    @asynccontextmanager
    async def process(
        self, env: Mapping[str, str] | None = None, *, ready: int | None = 200, **more: Any
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Yields when ``/readyz`` answers with ``ready`` (``None``: at once); killed on the way out."""
        command = [sys.executable, "-m", "whygate", "serve", "--config", str(self.folder / "whygate.yaml")]
        with (self.folder / "gateway.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **(env or {})}, **more
            )
        try:
            if ready is not None:
                await self.until_ready(process, ready)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def until_ready(self, process: asyncio.subprocess.Process, status: int = 200) -> None:
        async with httpx.AsyncClient() as client, asyncio.timeout(READY_S):
            while await self.readiness(client) != status:
                assert process.returncode is None, self.said
                await asyncio.sleep(0.02)

    async def readiness(self, client: httpx.AsyncClient) -> int:
        """The status of ``/readyz``; 0 where nobody answers."""
        with contextlib.suppress(httpx.TransportError):
            return (await client.get(f"{self.operators_url}/readyz")).status_code
        return 0

    # --- callers ---

    def headers(self, subject: str = "agent:support", **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens.make(subject, **claims)}"}

    async def caller(self, number: int) -> None:
        """Call in a loop until the gateway is gone or refuses for want of its ledger: permitted and refused in turn."""
        async with httpx.AsyncClient(
            base_url=f"{self.url}/http/billing", headers=self.headers(exp=4_000_000_000), timeout=40
        ) as client:
            for turn in range(100_000):
                amount = 4500 if turn % 3 else 9_000_000
                if not await self.call(client, amount, f"{number}-{turn}"):
                    return

    async def call(self, client: httpx.AsyncClient, amount: int, mark: str) -> bool:
        """One call; whether it was decided."""
        try:
            answer = await client.post("/refunds", json={"amount_cents": amount, "by": mark})
        except httpx.TransportError:
            self.broken += 1
            return False
        if answer.status_code == 503:
            assert answer.json()["code"] == "audit.unavailable", answer.text
            assert "whygate-decision" not in answer.headers or not answer.headers["whygate-decision"]
            assert answer.headers["retry-after"]
            self.unavailable += 1
            return False
        assert answer.status_code in (201, 401, 403), answer.text
        self.acknowledged[answer.headers["whygate-decision"]] = answer.status_code
        for wanted, event in self._waiters:
            if len(self.acknowledged) >= wanted:
                event.set()
        return True

    async def answered(self, more: int) -> None:
        """Return when ``more`` calls have been answered from now on."""
        event = asyncio.Event()
        self._waiters.append((len(self.acknowledged) + more, event))
        async with asyncio.timeout(60):
            await event.wait()

    @asynccontextmanager
    async def load(self, callers: int = 16) -> AsyncIterator[None]:
        """Callers at work, a few answers long already; on the way out they have all heard that it is over."""
        tasks = [asyncio.create_task(self.caller(number)) for number in range(callers)]
        try:
            await self.answered(callers * 4)
            yield
            async with asyncio.timeout(60):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def found(self, path: Path | None = None) -> "Found":
        return Found(path or self.ledger)

    def check(self, found: "Found") -> None:
        """Nothing that was acknowledged is missing, and the tool saw nothing without a record that allowed it."""
        missing = self.acknowledged.keys() - found.decisions.keys()
        assert not missing, f"{len(missing)} acknowledged decisions are not in the ledger"
        for decision, status in self.acknowledged.items():
            assert (found.decisions[decision]["effect"] == "allow") == (status == 201)
        allowed = {
            (one["context"]["trace_id"], span_id("client", one["id"]))
            for one in found.decisions.values()
            if one["effect"] == "allow"
        }
        seen = [tuple(one["headers"]["traceparent"].split("-")[1:3]) for one in self.billing.seen]
        assert len(seen) == len(set(seen)), "the tool saw a call twice"
        assert set(seen) <= allowed, "the tool saw a call that no record allows"


class Found:
    """A ledger's file as somebody reads it who has nothing but SQLite and the published format (docs/ledger.md).

    Raises ``AssertionError`` where it contradicts itself.
    """

    def __init__(self, path: Path) -> None:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        with contextlib.closing(connection):
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = connection.execute("SELECT seq, id, kind, time_us, hash, bytes FROM records ORDER BY seq").fetchall()
        self.records: list[dict[str, Any]] = []
        latest = 0
        for number, (seq, identity, kind, time_us, digest, data) in enumerate(rows, 1):
            assert seq == number, f"record {number} is missing"
            assert hashlib.sha256(b"\0" + data).digest() == digest, f"record {seq} is not what was hashed"
            record = json.loads(data)
            assert (record["seq"], record["kind"]) == (seq, kind)
            assert record["id"].replace("-", "") == identity.hex()
            assert time_us >= latest, f"the time of record {seq} runs backwards"
            latest = time_us
            self.records.append(record)
        self.decisions = {one["id"]: one for one in self.of("decision")}
        ends = [one["decision"] for one in self.of("completion")]
        assert len(ends) == len(set(ends)), "a call ended twice"
        allowed = {one["id"] for one in self.decisions.values() if one["effect"] == "allow"}
        assert set(ends) <= allowed, "a call ended that nobody allowed"
        self.open = allowed - set(ends)
        """Calls that have not ended."""

    def of(self, kind: str, where: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[dict[str, Any]]:
        return [one for one in self.records if one["kind"] == kind and where(one)]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The data of the records of a kind: ``gap``, ``clock_step``."""
        return [one["data"] for one in self.of(kind)]

    def unknown(self) -> list[str]:
        """Decisions whose calls ended as ``outcome.unknown``."""
        return [one["decision"] for one in self.of("completion") if one.get("code") == "outcome.unknown"]


def with_libraries(libraries: Iterable[Path], **more: str) -> dict[str, str]:
    """Environment for ``Served.process``: these are loaded before the C library."""
    return {"LD_PRELOAD": " ".join(map(str, libraries)), **more}
