"""``python benchmarks/held.py [calls]``: what calls cost that wait for a person, and what those beside them notice.

One gateway, as many connections as calls, each held (``Prefer: wait=50``) with a question of its own; permitted calls are made
before and beside them, in turns, in the same run.
"""

import asyncio
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import yaml

from whygate.authn.api_key import from_random, stored

EACH = 32
"""Questions of one agent that may wait."""
LANES, SPAN_S, TURNS = 16, 3.0, 3
RULES = """
policy: bench
version: 1
owner: bench@example.com
agents: ["*"]
rules:
  - {id: read, tools: [billing/invoice_get], permit: {}, why: Harmless.}
  - id: refund
    tools: [billing/refund]
    permit: {require: {human: {approvers: ["group:leads"], within: 30m}}}
    why: A lead agrees.
"""


def key(agent: int) -> str:
    return from_random(hashlib.sha256(b"bench %d" % agent).digest())


@contextlib.contextmanager
def gateway(folder: Path, agents: int, ports: tuple[int, int]) -> Iterator[subprocess.Popen[bytes]]:
    """Billing and the gateway before it, until the block ends."""
    environment = {**os.environ, "BILLING_TOKEN": "bench"}
    billing = subprocess.Popen(
        [sys.executable, "-m", "whygate.testing.billing"], stdout=subprocess.PIPE, env=environment
    )
    assert billing.stdout is not None
    url = billing.stdout.readline().decode().strip()
    (folder / "policies").mkdir()
    (folder / "policies" / "bench.yaml").write_text(RULES)
    settings = {
        "listen": f"127.0.0.1:{ports[0]}",
        "operators_listen": f"127.0.0.1:{ports[1]}",
        "ledger": "ledger.db",
        "policies": "policies",
        "identities": {"agents": [{"id": f"agent-{n}", "api_keys": [stored(key(n))]} for n in range(agents)]},
        "tools": {
            "billing": {
                "http": {"url": url, "credential": {"prefix": "Bearer ", "value": "env:BILLING_TOKEN"}},
                "operations": [
                    {"name": "invoice_get", "method": "GET", "path": "/invoices/{id}", "class": "read"},
                    {"name": "refund", "method": "POST", "path": "/refunds", "class": "spend"},
                ],
            }
        },
    }
    (folder / "whygate.yaml").write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "whygate", "serve", "--config", str(folder / "whygate.yaml")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
    )
    try:
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{ports[1]}/readyz").status_code == 200:
                    break
            time.sleep(0.1)
        else:
            raise SystemExit((folder / "log").read_text())
        yield process
    finally:
        for each in (process, billing):
            each.terminate()
            each.wait(40)


def memory_kib(pid: int) -> int:
    """What belongs to the process alone, and its share of the rest."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))


async def hold(port: int, number: int, started: asyncio.Semaphore) -> asyncio.StreamWriter:
    """One call that waits, on a connection of its own."""
    async with started:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"invoice_id":"1042","amount_cents":%d}' % (number + 1)
        head = (
            f"POST /http/billing/refunds HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key(number // EACH)}\r\n"
            f"content-type: application/json\r\nprefer: wait=50\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        return writer


async def rate(port: int) -> float:
    """Permitted calls a second."""
    ends, done = time.monotonic() + SPAN_S, 0

    async def lane() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /http/billing/invoices/1042 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key(0)}\r\n\r\n"
        while time.monotonic() < ends:
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer.split(b"\r\n", 1)[0]:
                raise SystemExit(answer.decode())
            fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
            if b"content-length" in fields:
                await reader.readexactly(int(fields[b"content-length"]))
            else:
                while (size := int(await reader.readline(), 16)) or not await reader.readline():
                    await reader.readexactly(size + 2)
                    if not size:
                        break
            done += 1
        writer.close()

    await asyncio.gather(*(lane() for _ in range(LANES)))
    return done / SPAN_S


async def measure(process: "subprocess.Popen[bytes]", port: int, calls: int) -> None:
    await rate(port)  # warm
    alone = [await rate(port) for _ in range(TURNS)]
    before = memory_kib(process.pid)
    many = asyncio.Semaphore(64)
    began = time.monotonic()
    writers = await asyncio.gather(*(hold(port, number, many) for number in range(calls)))
    await asyncio.sleep(2)
    took = time.monotonic() - began
    after = memory_kib(process.pid)
    beside = [await rate(port) for _ in range(TURNS)]
    left = time.monotonic() - began
    for writer in writers:
        writer.close()
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"held: {calls} calls, opened within {took:.1f} s, still held after {left:.0f} s")
    print(
        f"memory: {before / 1024:.0f} -> {after / 1024:.0f} MiB, {(after - before) / calls:.1f} KiB for each held call"
    )
    print(
        f"permitted calls beside them: {statistics.median(beside):.0f}/s, alone {statistics.median(alone):.0f}/s: {ratio:.2f}"
    )


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(Path(folder), -(-calls // EACH), (18790, 18791)) as process,
    ):
        asyncio.run(measure(process, 18790, calls))


if __name__ == "__main__":
    main()
