"""Stdio servers that misbehave, and agents that make them: neither holds up others, nor outgrows its bounds."""

import asyncio
import sys
from pathlib import Path

import pytest
from tests.servers.mcp_edge import call, gateway

from whygate.core.reasons import Code
from whygate.mcp import process
from whygate.mcp.backend import Limits, Server
from whygate.mcp.wire import Waiter
from whygate.testing.gate import FakeGate
from whygate.transport.upstream import UpstreamError

HELLO = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
DEAF = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps({"jsonrpc": "2.0", "id": json.loads(sys.stdin.readline())["id"], "result": {}}), flush=True)
time.sleep(30)
"""


def _deaf(folder: Path, **more: int) -> Server:
    """Answers once, then neither reads nor leaves when it is asked to."""
    script = folder / "deaf.py"
    script.write_text(DEAF, encoding="utf-8")
    return Server(name="up", command=(sys.executable, str(script)), limits=Limits(**more))


async def test_a_server_that_stops_reading_does_not_hold_its_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call fails in time and is completed; what lies before the server does not grow without end."""
    assert process.WRITE_S == 30
    monkeypatch.setattr(process, "WRITE_S", 0.3)
    monkeypatch.setattr(process, "UNREAD_BYTES", 1_000_000)
    monkeypatch.setattr(process, "STOP_S", 0.2)
    gate = FakeGate()
    async with gateway(_deaf(tmp_path), gate) as up, up.raw() as client:
        begun = await client.post("/up", json=HELLO)
        session = {"mcp-session-id": begun.headers["mcp-session-id"]}
        big = call(args={"x": "a" * 900_000}, modern=False)
        answers = [
            await client.post("/up", json=big | {"id": number}, headers=session, timeout=5) for number in range(4)
        ]
    assert all(answer.json()["result"]["isError"] for answer in answers)
    ends = [completion.code for admission, completion in gate.completed if admission.call.method == "tools/call"]
    assert ends == [Code.UPSTREAM_TIMEOUT] * 4


async def test_processes_that_will_not_leave_count_until_they_are_gone(tmp_path: Path) -> None:
    """Beginning session after session can't start more processes than two times the agent's bound."""
    gate = FakeGate()
    async with gateway(_deaf(tmp_path, per_principal=2), gate) as up, up.raw() as client:
        answers = [await client.post("/up", json=HELLO) for _ in range(6)]
        other = await client.post("/up", json=HELLO, headers={"authorization": "Bearer another"})
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    assert ["error" in answer.json() for answer in answers] == [False] * 4 + [True] * 2
    refused = [admission.decision.code for admission in gate.admitted if not admission.decision.allows]
    assert refused == [Code.QUOTA_EXCEEDED] * 2
    assert "result" in other.json()


async def test_what_waits_for_a_slow_client_is_bounded_in_bytes() -> None:
    """A server that talks without end at a client that does not listen: cut off, not kept."""
    waiter = Waiter(1, 1, None, takes_events=True)
    for _ in range(10):
        waiter.put(b"x" * 10_000_000)
    assert waiter.queue.qsize() <= 4
    with pytest.raises(UpstreamError):
        await waiter.next(1)
    listening = Waiter(1, 1, None, takes_events=True)
    for _ in range(10):
        listening.put(b"x" * 10_000_000)
        assert len(await asyncio.wait_for(listening.next(1), 1)) == 10_000_000
