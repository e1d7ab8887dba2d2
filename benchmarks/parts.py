"""The parts of a call by themselves, for ``micro.py``. For finding out what a change did, not for comparing
machines: each number is the best of several rounds, so what else the machine does hardly shows.
"""

import argparse
import asyncio
import datetime
import gc
import logging
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from benchmarks import gateway_files, machine
from benchmarks.load import Requests
from benchmarks.measures import percentile
from rich import box
from rich.console import Console
from rich.table import Table

from whygate.core import records
from whygate.core.calls import Hints, Tier, Tool, ToolCall, ToolClass
from whygate.core.decide import decide
from whygate.core.facts import Facts
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.policy.model import PolicySet
from whygate.core.policy.parse import load
from whygate.core.records import AnyRecord, CompletionRecord, DecisionRecord
from whygate.core.schemas import of_tool
from whygate.core.strict_json import loads
from whygate.flow.catalogue import Catalogue
from whygate.flow.gatekeeper import Gatekeeper, Surroundings
from whygate.flow.policies import Policies
from whygate.flow.ports import Admission, Completion, StoredTask
from whygate.flow.tasks import Tasks
from whygate.flow.world import RandomIds
from whygate.stores.sqlite import SqliteLedger
from whygate.telemetry import otlp, spans
from whygate.testing.authority import authority

ROUNDS = 7
ROUND_S = 0.15
CALL_BYTES = 378
LEVELS = (1, 8, 32, 128)

ACCEPTS = of_tool(gateway_files.DEFINITION["inputSchema"])

Row = tuple[str, str, str]


class NoLedger:
    """Takes everything and keeps the last of each kind: what the flow costs without a disk. A clock as well."""

    def __init__(self) -> None:
        self.last: dict[str, AnyRecord] = {}

    async def append(self, *given: AnyRecord, claims: Any = ()) -> None:  # noqa: ARG002  the port's signature
        for record in given:
            self.last[record.kind] = record

    def follow(self, record: CompletionRecord) -> None:
        self.last["completion"] = record

    def put_policy(self, digest: str, texts: Any) -> None:
        """Forgets it."""

    def tasks(self) -> list[StoredTask]:
        return []

    def in_force(self) -> list[tuple[str, str, bytes]]:
        return []

    def policy_in_force(self) -> str:
        return ""

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)


class NoObserver:
    """Counts nothing."""

    def decided(self, admission: Admission, seconds: float) -> None: ...

    def completed(self, admission: Admission, completion: Completion, seconds: float) -> None: ...


def call(tool: str = "remind") -> ToolCall:
    """The call of the benchmark, as the edge hands it over."""
    body = loads(request_body())
    return ToolCall(
        protocol="mcp",
        method="tools/call",
        server="bench",
        tool=Tool(
            server="bench",
            name=tool,
            type="mcp",
            tool_class=ToolClass.SEND,
            tier=Tier.MEDIUM,
            labels=("sensitive",),
            accepts=ACCEPTS,
        ),
        args=body["params"]["arguments"],
        principal=Principal(
            id="agent-1",
            type=IdentityType.AI_AGENT,
            proof=Proof.JWT,
            credential="sha256:0123456789abcdef",
            issuer=gateway_files.ISSUER,
            owner="bench@example.com",
            roles=(gateway_files.ROLE,),
        ),
        client="127.0.0.1",
        hints=Hints(session="0123456789abcdef0123456789abcdef"),
        version="2025-11-25",
        request_id=str(body["id"]),
    )


def request_body(size: int = 0) -> bytes:
    """The load's first request; with ``size``, stretched to so many bytes."""
    data, _ = Requests(1, "/", [{"token": "t", "session": "s"}]).next()
    body = data.partition(b"\r\n\r\n")[2]
    return body.replace(b'"note":"', b'"note":"' + b"x" * max(size - len(body), 0)) if size else body


def best_us(work: Callable[[], object], each: int = 1) -> float:
    """Microseconds of one ``work`` (of one of its ``each`` items), in the best of some rounds."""
    timer = timeit.Timer(work)
    number, _ = timer.autorange()
    number = max(int(number * ROUND_S / 0.2), 1)
    return min(timer.repeat(ROUNDS, number)) / number / each * 1e6


def gatekeeper(ledger: NoLedger, texts: dict[str, str]) -> Gatekeeper:
    new_ids = RandomIds()
    policies = Policies(ledger, new_ids)
    asyncio.run(policies.bring_into_force(texts))
    around = Surroundings(
        ledger=ledger,
        policies=policies,
        tasks=Tasks(ledger, ledger, new_ids, b"t" * 32, b"d" * 32),
        authority=authority(ledger, ledger, new_ids),
        catalogue=Catalogue({}),
        clock=ledger,
        ids=new_ids,
        digest_key=b"d" * 32,
        observer=NoObserver(),
        deployment="bench",
    )
    return Gatekeeper(around)


def sample() -> tuple[DecisionRecord, CompletionRecord]:
    """The two records of one permitted call, made by the real flow."""
    ledger = NoLedger()
    gate = gatekeeper(ledger, gateway_files.policy_texts())
    admission = asyncio.run(gate.admit(call()))
    if not admission.allowed:
        raise SystemExit(f"the benchmark's call is not permitted: {admission.decision.admin}")
    gate.complete(admission, Completion(status=200, result_bytes=120, result_digest="k1:" + "0" * 43))
    decision, completion = ledger.last["decision"], ledger.last["completion"]
    assert isinstance(decision, DecisionRecord)
    assert isinstance(completion, CompletionRecord)
    decision.time = completion.time = NoLedger().now()
    decision.seq, decision.writer = 1_000_000, completion.id
    return decision, completion


def deciding() -> list[Row]:
    rows = []
    facts = Facts(now=NoLedger().now(), task=None, deployment="bench")
    asked = call()
    for count in (10, 100, 1000):
        policy: PolicySet = load(gateway_files.policy_texts(count))
        decision = decide(asked, facts, policy)
        assert decision.allows, decision.admin
        evaluated = len(decision.evaluations)
        took = best_us(lambda policy=policy: decide(asked, facts, policy))  # type: ignore[misc]  bound now on purpose
        rows.append((f"decide, {count} rules", f"{took:.1f} µs", f"{evaluated} apply"))
    return rows


def encoding() -> list[Row]:
    decision, completion = sample()
    body = request_body(CALL_BYTES)
    plain = msgspec.json.Decoder().decode
    size, end_size = len(records.encode(decision)), len(records.encode(completion))
    data = records.encode(decision)
    return [
        ("records.encode, decision", f"{best_us(lambda: records.encode(decision)):.2f} µs", f"{size} bytes"),
        ("records.encode, completion", f"{best_us(lambda: records.encode(completion)):.2f} µs", f"{end_size} bytes"),
        ("records.decode, decision", f"{best_us(lambda: records.decode(data)):.2f} µs", ""),
        ("strict_json.loads", f"{best_us(lambda: loads(body)):.2f} µs", f"{len(body)} bytes"),
        ("msgspec, which takes duplicate keys", f"{best_us(lambda: plain(body)):.2f} µs", "for comparison"),
    ]


def admitting() -> list[Row]:
    """Everything between the edge and the ledger."""
    gate = gatekeeper(NoLedger(), gateway_files.policy_texts())
    asked = call()
    loop = uvloop.new_event_loop()
    many = 200

    async def some() -> None:
        for _ in range(many):
            admission = await gate.admit(asked)
            gate.complete(admission, Completion(status=200, result_bytes=120))

    took = best_us(lambda: loop.run_until_complete(some()), many)
    loop.close()
    return [("admit and complete, ledger left out", f"{took:.1f} µs", f"{gateway_files.RULES} rules")]


def projecting() -> list[Row]:
    decision, completion = sample()
    instance = spans.Instance(writer=decision.writer)
    made = spans.of_call(decision, completion, instance)
    many = 500
    encoder = otlp.Encoder("bench")
    built = best_us(lambda: spans.of_call(decision, completion, instance), len(made))
    encoded = best_us(lambda: encoder.encode(made * many), len(made) * many)
    return [
        ("spans.of_call, per span", f"{built:.1f} µs", f"{len(made)} spans a call"),
        (
            "otlp encode, per span",
            f"{encoded:.1f} µs",
            f"{len(encoder.encode(made * many)) // (len(made) * many)} bytes",
        ),
    ]


def appending(folder: Path, seconds: float, levels: Sequence[int] = LEVELS) -> list[Row]:
    template, _ = sample()
    rows = []
    for level in levels:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            rows.append(uvloop.run(_append(Path(place) / "ledger.db", template, level, seconds)))
    return rows


async def _append(path: Path, template: DecisionRecord, level: int, seconds: float) -> Row:
    ledger = await asyncio.to_thread(SqliteLedger, path, start={})
    new = RandomIds().new
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def one_after_another() -> None:
        while time.perf_counter() < until:
            record = msgspec.structs.replace(template, id=new(), claims=())
            started = time.perf_counter()
            await ledger.append(record)
            times.append((time.perf_counter() - started) * 1e3)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_after_another() for _ in range(level)))
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    await asyncio.to_thread(ledger.close)
    times.sort()
    waits = f"p50 {percentile(times, 0.5):.2f}, p99 {percentile(times, 0.99):.2f} ms"
    return (
        f"ledger append, {level} in flight",
        f"{len(times) / elapsed:,.0f}/s",
        f"{waits}, {cpu / len(times) * 1e6:.0f} µs CPU each",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where the ledger is written (here)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each level of the ledger (2)")
    chosen = parser.parse_args()
    logging.disable(logging.INFO)
    gc.freeze()
    table = Table("part", "takes", "", box=box.SIMPLE_HEAD)
    for rows in (deciding(), encoding(), admitting(), projecting(), appending(chosen.folder, chosen.seconds)):
        for row in rows:
            table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    where, fsync = machine.describe(), machine.fsync_ms(chosen.folder)
    console.print(
        f"{where['cpu']}, Python {where['python']}; fdatasync of 4 KiB p50 {fsync['p50']}, p99 {fsync['p99']} ms"
    )
