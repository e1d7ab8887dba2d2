"""The load: a closed loop of MCP ``tools/call`` requests, each answer checked.

As many connections as calls in flight; each sends its next call when the last one is answered. A process of its own:
prints ``begin`` and ``end`` around the measured time, then one line of JSON.
"""

import argparse
import asyncio
import gc
import json
import signal
import time
from array import array
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from benchmarks.measures import percentile
from benchmarks.wire import Message, Unreadable, read_message

FIRST_ID = 1_000_000_000
"""Ids of one width, so that the content-length of a session's requests never changes."""
PARSE_EVERY = 64
"""Every answer is searched for what it must hold; of these one in so many is also parsed as JSON."""
GIVE_UP = 100
"""Wrong answers after which measuring on would be a waste."""
GRACE_S = 20.0
"""For the last answers in flight."""


class Asked(NamedTuple):
    """What an answer has to match."""

    number: int
    text: bytes


class Requests:
    """Requests of ``sessions`` in turn: pairs of token and session id, as JSON objects."""

    def __init__(self, port: int, path: str, sessions: list[dict[str, str]]) -> None:
        self._heads = [_head(port, path, session) for session in sessions]
        self._number = FIRST_ID

    def next(self) -> tuple[bytes, Asked]:
        number = self._number
        self._number += 1
        text = b"invoice %d is due, remind the customer once" % number
        body = (
            b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"remind","arguments":{"text":"%b",'
            b'"customer":"cus_%d","amount_cents":%d,"currency":"EUR","channel":"email","language":"en",'
            b'"note":"second reminder, friendly tone, mention the due date and how to pay"}}}'
            % (number, text, number, 1000 + number % 9000)
        )
        return self._heads[number % len(self._heads)] % len(body) + body, Asked(number, text)


def _head(port: int, path: str, session: dict[str, str]) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        "mcp-protocol-version: 2025-11-25",
        f"mcp-session-id: {session['session']}",
        f"authorization: Bearer {session['token']}",
        "content-length: %d",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def check(message: Message, asked: Asked, *, decided: bool, parse: bool = False) -> str:
    """What is wrong with an answer; empty where it is right. ``decided``: it has to name its decision."""
    if not message.head.startswith(b"http/1.1 200"):
        return f"status {message.head[9:12].decode('latin-1')}: {message.body[:300]!r}"
    if message.body.find(b'"text":"%b"' % asked.text) < 0:
        return f"not the echo of its call: {message.body[:300]!r}"
    if message.body.find(b'"id":%d' % asked.number) < 0:
        return f"not the id of its call: {message.body[:300]!r}"
    if decided and message.head.find(b"\r\nwhygate-decision:") < 0:
        return f"names no decision: {message.head[:300]!r}"
    return _parsed(message.body, asked) if parse else ""


def _parsed(body: bytes, asked: Asked) -> str:
    try:
        value = json.loads(body)
        result = value["result"]
        right = value["id"] == asked.number and result["content"][0]["text"] == asked.text.decode()
        right = right and not result.get("isError", False)
    except (ValueError, LookupError, TypeError, AttributeError):
        right = False
    return "" if right else f"not the result of its call: {body[:300]!r}"


class Load:
    """One cell's load."""

    def __init__(self, requests: Requests, *, decided: bool) -> None:
        self.requests = requests
        self.decided = decided
        self.sending = True
        self.measuring = False
        self.latencies = array("d")
        self.made = 0
        self.wrong = 0
        self.examples: list[str] = []
        self.open = 0
        self.over = asyncio.Event()

    def answered(self, message: Message, asked: Asked, started: float) -> None:
        self.made += 1
        if self.measuring:
            self.latencies.append(time.perf_counter() - started)
        wrong = check(message, asked, decided=self.decided, parse=asked.number % PARSE_EVERY == 0)
        if wrong:
            self.failed(wrong)

    def failed(self, what: str) -> None:
        self.wrong += 1
        if len(self.examples) < 3:
            self.examples.append(what)
        if self.wrong >= GIVE_UP:
            self.sending = False

    def closed(self) -> None:
        self.open -= 1
        if not self.open:
            self.over.set()


class Connection(asyncio.Protocol):
    """One call in flight, again and again."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._rest = b""
        self._asked: Asked | None = None
        self._started = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._load.open += 1
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        try:
            message = read_message(data)
        except Unreadable as error:
            self._load.failed(str(error))
            self._end()
            return
        if message is None:
            self._rest = data
            return
        self._rest = b""
        if self._asked is None or message.size != len(data):
            self._load.failed(f"more than one answer: {data[:300]!r}")
            self._end()
            return
        self._load.answered(message, self._asked, self._started)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked is not None:
            self._load.failed(f"the connection was closed in the middle of a call ({exc!r})")
        self._load.closed()

    def _send(self) -> None:
        if not self._load.sending:
            self._end()
            return
        data, self._asked = self._load.requests.next()
        self._started = time.perf_counter()
        self._transport.write(data)

    def _end(self) -> None:
        self._asked = None
        self._transport.close()


async def run(load: Load, port: int, in_flight: int, *, warm_up_s: float, seconds: float) -> dict[str, Any]:
    """Drive ``load`` and tell what came of it."""
    loop = asyncio.get_running_loop()
    for _ in range(in_flight):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    await _until(load, warm_up_s)
    print("begin", flush=True)
    load.measuring, began = True, time.perf_counter()
    await _until(load, seconds)
    load.measuring, elapsed = False, time.perf_counter() - began
    print("end", flush=True)
    load.sending = False
    try:
        await asyncio.wait_for(load.over.wait(), GRACE_S)
    except TimeoutError:
        load.failed(f"{load.open} calls were not answered within {GRACE_S:g} s of the end")
    ordered = sorted(load.latencies)
    return {
        "calls": len(ordered),
        "made": load.made,
        "wrong": load.wrong,
        "examples": load.examples,
        "seconds": elapsed,
        "p50_ms": percentile(ordered, 0.5) * 1e3,
        "p99_ms": percentile(ordered, 0.99) * 1e3,
    }


async def _until(load: Load, seconds: float) -> None:
    """Wait, but not for what has gone wrong altogether."""
    try:
        await asyncio.wait_for(load.over.wait(), seconds)
    except TimeoutError:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--sessions", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--warm-up", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--decided", action="store_true")
    options = parser.parse_args()
    # Whatever hangs: this process ends by itself.
    signal.alarm(int(options.warm_up + options.seconds + 2 * GRACE_S) + 1)
    gc.disable()  # the run is short, and makes no circles
    sessions = json.loads(options.sessions.read_text())

    async def measure() -> dict[str, Any]:
        load = Load(Requests(options.port, options.path, sessions), decided=options.decided)
        return await run(load, options.port, options.in_flight, warm_up_s=options.warm_up, seconds=options.seconds)

    print(json.dumps(uvloop.run(measure())), flush=True)


if __name__ == "__main__":
    main()
