"""New policies in a running gateway: under load, by signal, and over the operators' listener."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.servers.gateway import Running, Tokens, billing_tool, running, settings

from whygate.stores.reader import Reader
from whygate.testing.billing import BillingServer

RULES = """
policy: support
version: {version}
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: read
    tools: [billing/invoice_get]
    {effect}
    why: Reading is routine.
"""
OPEN, CLOSED, BROKEN = "permit: {}", "deny: {}", "permit: {}\n    when: args.x >"
IN_FLIGHT = 64
RELOADS = 12


def write(folder: Path, effect: str, version: int = 1) -> None:
    (folder / ".new").write_text(RULES.format(effect=effect, version=version))
    (folder / ".new").rename(folder / "support.yaml")


async def until(holds: Callable[[], Awaitable[Any]]) -> None:
    """Wait for what the watch brings about; it has nothing else to wait for."""
    deadline = time.monotonic() + 20
    while not await holds():
        assert time.monotonic() < deadline, "it did not come about within twenty seconds"
        await asyncio.sleep(0.02)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    write(folder, OPEN)
    return folder


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer, policies: Path) -> AsyncIterator[Running]:
    tools = {"billing": billing_tool(billing, tmp_path)}
    async with running(tmp_path, tools, policies=str(policies)) as made:
        yield made


async def reload(gateway: Running, who: str = "ada@example.com") -> httpx.Response:
    async with httpx.AsyncClient(timeout=20) as client:
        return await client.post(f"{gateway.operators_url}/v1/policies/reload", headers=gateway.headers(who))


async def shown(gateway: Running, who: str = "host:runner") -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.operators_url}/v1/policies", headers=gateway.headers(who))
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def metric(gateway: Running, name: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{gateway.operators_url}/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


async def test_no_call_is_lost_or_decided_by_a_set_that_was_over(gateway: Running, policies: Path) -> None:
    """Sixty-four calls at a time while the set changes again and again: every call has its answer, by the set that was in
    force when its record was written, and permitted or refused as that very set says.
    """
    stop = asyncio.Event()
    answers: list[httpx.Response] = []

    async def caller(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answers.append(await client.get(f"{gateway.url}/http/billing/invoices/1042"))

    limits = httpx.Limits(max_connections=IN_FLIGHT)
    async with httpx.AsyncClient(headers=gateway.headers(), timeout=30, limits=limits) as client:
        callers = [asyncio.create_task(caller(client)) for _ in range(IN_FLIGHT)]
        for number in range(RELOADS):
            write(policies, CLOSED if number % 2 == 0 else OPEN, number + 2)
            done = await reload(gateway)
            assert done.json()["event"] in ("in_force", "unchanged"), (
                done.text
            )  # the watch may be first on a slow machine
            enough = len(answers) + IN_FLIGHT

            async def some_more(enough: int = enough) -> bool:
                return len(answers) >= enough

            await until(some_more)
        stop.set()
        await asyncio.gather(*callers)
    in_force, permits, refused_or_not = "", {}, {}
    for record in gateway.records():
        if record["kind"] == "policy":
            assert record["event"] == "in_force"
            in_force = record["digest"]
            permits[in_force] = len(permits) % 2 == 0
        elif record["kind"] == "decision":
            assert record["policy"]["digest"] == in_force, record["seq"]
            assert (record["reason"]["code"] == "role.permitted") is permits[in_force]
            refused_or_not[record["id"]] = record["reason"]["code"]
    assert len(permits) == RELOADS + 1
    assert {answer.headers["whygate-reason"] for answer in answers} == {"role.permitted", "policy.explicit_deny"}
    for answer in answers:
        assert answer.status_code == (200 if answer.headers["whygate-reason"] == "role.permitted" else 403)
        assert refused_or_not.pop(answer.headers["whygate-decision"]) == answer.headers["whygate-reason"]
    assert refused_or_not == {}


async def test_an_edit_takes_effect_by_itself(gateway: Running, policies: Path) -> None:
    """Nobody commands anything; a bad edit after it is shown with its place, and in the metrics, until it is mended."""
    before = await shown(gateway)
    write(policies, CLOSED, 2)

    async def changed() -> bool:
        return (await shown(gateway))["in_force"]["digest"] != before["in_force"]["digest"]

    await until(changed)
    after = await shown(gateway)
    assert after["in_force"]["since"] > before["in_force"]["since"]
    assert [(one["id"], one["version"], one["rules"]) for one in after["in_force"]["policies"]] == [("support", 2, 1)]
    assert [one["name"] for one in after["in_force"]["files"]] == ["support.yaml"]
    assert after["refused"] is None
    assert await metric(gateway, "whygate_policy_refused") == 0
    loaded = await metric(gateway, "whygate_policy_loaded_timestamp_seconds")
    assert abs(loaded - time.time()) < 60

    write(policies, BROKEN, 3)

    async def told() -> Any:
        return (await shown(gateway))["refused"]

    await until(told)
    now = await shown(gateway)
    assert now["in_force"] == after["in_force"]
    assert [(one["file"], one["line"]) for one in now["refused"]["errors"]] == [("support.yaml", 10)]
    assert await metric(gateway, "whygate_policy_refused") == 1

    write(policies, OPEN, 4)

    async def mended() -> bool:
        return await told() is None

    await until(mended)
    assert await metric(gateway, "whygate_policy_refused") == 0
    records = [one for one in gateway.records() if one["kind"] == "policy"]
    assert [(one["event"], one["cause"]) for one in records] == [
        ("in_force", "start"),
        ("in_force", "folder"),
        ("refused", "folder"),
        ("in_force", "folder"),
    ]


async def test_people_and_named_hosts_command_a_reload(gateway: Running, policies: Path) -> None:
    """It says what came of it: in force, unchanged, or refused with every error; the record names who commanded."""
    assert (await reload(gateway)).json()["event"] == "unchanged"
    write(policies, CLOSED, 2)
    done = await reload(gateway, "host:runner")
    assert done.json() == {"event": "in_force", "in_force": (await shown(gateway))["in_force"]["digest"]}
    write(policies, BROKEN, 3)
    refused = await reload(gateway)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["in_force"] == done.json()["in_force"]
    assert [(one["file"], one["line"]) for one in refused.json()["errors"]] == [("support.yaml", 10)]
    records = [one for one in gateway.records() if one["kind"] == "policy"]
    assert [(one["event"], one.get("subject", {}).get("id")) for one in records] == [
        ("in_force", None),
        ("in_force", "host:runner"),
        ("refused", "ada@example.com"),
    ]


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/policies/reload"), ("GET", "/v1/policies")])
@pytest.mark.parametrize(
    ("who", "status", "code"), [("agent:support", 403, "policy.explicit_deny"), ("", 401, "agent.unauthenticated")]
)
async def test_agents_and_strangers_neither_see_nor_reload(
    gateway: Running, method: str, path: str, who: str, status: int, code: str
) -> None:
    """Refused and recorded like any call; the folder is not looked at."""
    headers = gateway.headers(who) if who else {}
    async with httpx.AsyncClient() as client:
        answer = await client.request(method, gateway.operators_url + path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    record = gateway.decision(answer)
    assert record["action"]["name"] == ("policies/reload" if method == "POST" else "policies/read")
    assert "in_force" not in answer.text


@pytest.mark.skipif(sys.platform == "win32", reason="SIGHUP is a word of Unix")
async def test_a_hangup_signal_reloads_and_ends_nothing(tmp_path: Path, billing: BillingServer, policies: Path) -> None:
    """As daemons have always done it: the process lives on, and the record's cause is the signal. A start with a bad
    folder goes on with what was in force, and says so.
    """
    tokens = Tokens()
    (tmp_path / "jwks.json").write_text(json.dumps(tokens.jwks()))
    config = settings(tmp_path, {"billing": billing_tool(billing, tmp_path)}, policies=str(policies))
    (tmp_path / "whygate.yaml").write_text(yaml.safe_dump(config))

    def causes() -> list[tuple[str, str]]:
        with Reader(tmp_path / "whygate.db") as reader:
            records = [json.loads(data) for _, data in reader.since(0)]
        return [(one["event"], one["cause"]) for one in records if one["kind"] == "policy"]

    async with process(tmp_path, config) as first:
        write(policies, CLOSED, 2)
        os.kill(first, signal.SIGHUP)

        async def reloaded() -> bool:
            return len(causes()) == 2

        await until(reloaded)
    assert causes() == [("in_force", "start"), ("in_force", "signal")]
    write(policies, BROKEN, 3)
    async with process(tmp_path, config):
        assert causes()[2:] == [("refused", "start")]
    assert "the last good policies are in force" in (tmp_path / "gateway.log").read_text()


@contextlib.asynccontextmanager
async def process(folder: Path, config: dict[str, Any]) -> AsyncIterator[int]:
    """``whygate serve`` as operators run it: its process id, once it is ready."""
    command = [sys.executable, "-m", "whygate", "serve", "--config", str(folder / "whygate.yaml")]
    with (folder / "gateway.log").open("ab") as log:
        started = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)

    async def ready() -> bool:
        assert started.returncode is None, (folder / "gateway.log").read_text()
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://{config['operators_listen']}/readyz")).status_code == 200
        return False

    try:
        await until(ready)
        yield started.pid
        started.terminate()
        assert await started.wait() == 0
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
