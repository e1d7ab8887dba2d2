"""Whatever happens to the ledger of a gateway at work: calls stop, nothing is lost, doubled or invented, and it recovers.

Each fault meets a real ``whygate serve`` under load; what is in the file afterwards is read without whygate's own code.
"""

import asyncio
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.servers import failing_disk
from tests.servers.served import Served, with_libraries

from whygate.testing.billing import BillingServer
from whygate.testing.threads import serving

pytestmark = pytest.mark.slow
FILE_BYTES = 900_000
Act = Callable[[Path], Callable[[], None]]
"""Does something to the ledger at this path; returns what mends it."""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("libraries")
    disk, clock = (failing_disk.build(folder, name) for name in ("failing_disk", "stepping_clock"))
    if disk is None or clock is None:
        pytest.skip("a disk that fails and a clock that steps on command need Linux and a C compiler")
    return disk, clock


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(BillingServer("the-gateways-own-secret")) as billing:
        yield Served(tmp_path, billing)


def _moved(suffix: str) -> Act:
    def move(ledger: Path) -> Callable[[], None]:
        path, aside = Path(f"{ledger}{suffix}"), Path(f"{ledger}.aside")
        path.rename(aside)
        return lambda: aside.replace(path)

    return move


def _deleted(suffix: str) -> Act:
    def delete(ledger: Path) -> Callable[[], None]:
        Path(f"{ledger}{suffix}").unlink()
        return lambda: None

    return delete


def _replaced(ledger: Path) -> Callable[[], None]:
    """As a careless restore does it: a copy takes the file's place, the original is moved out of the way."""
    aside = Path(f"{ledger}.aside")
    copy = Path(f"{ledger}.copy")
    shutil.copyfile(ledger, copy)
    os.link(ledger, aside)
    copy.replace(ledger)
    return lambda: aside.replace(ledger)


@pytest.mark.parametrize(
    "act",
    [_moved(""), _replaced, _moved("-wal"), _deleted("-shm"), _deleted(".lock")],
    ids=["the file moved", "the file replaced", "the -wal moved", "the -shm deleted", "the lock deleted"],
)
async def test_a_file_that_is_taken_away_under_load(served: Served, act: Act) -> None:
    """Calls stop within seconds and the process ends; put back, everything acknowledged is there, and a gap is told."""
    async with served.process() as process:
        async with served.load():
            mend = act(served.ledger)
        assert await asyncio.wait_for(process.wait(), 20) == 1
    assert served.unavailable + served.broken  # by whom it is noticed first: a call, or the look once a second
    mend()
    async with served.process(), httpx.AsyncClient(headers=served.headers()) as client:
        answer = await client.get(f"{served.url}/http/billing/invoices/1042")
        assert answer.status_code == 200
        found = served.found()
    served.check(found)
    (gap,) = found.told("gap")
    assert gap["unrecorded"] >= served.unavailable
    assert not found.open - {answer.headers["whygate-decision"]}


async def test_a_ledger_that_is_gone_for_good(served: Served) -> None:
    """Deleted under load: nothing is acknowledged any more; the next start says that a new ledger begins, and why."""
    async with served.process() as process:
        async with served.load():
            served.ledger.unlink()
        assert await asyncio.wait_for(process.wait(), 20) == 1
    assert served.unavailable
    seen = len(served.billing.seen)
    async with served.process():
        found = served.found()
    assert len(served.billing.seen) == seen
    assert [one["kind"] for one in found.records[:2]] == ["start", "gap"]
    assert "was deleted" in found.told("gap")[0]["reason"]
    assert "begins anew" in served.said


@pytest.mark.parametrize("fault", ["e", "f"], ids=["a sync fails", "the disk is full"])
async def test_a_disk_that_refuses_under_load(
    served: Served, libraries: tuple[Path, Path], tmp_path: Path, fault: str
) -> None:
    """Calls stop, the process ends; with the disk well again, everything acknowledged is there, and a gap is told."""
    mode = tmp_path / "mode"
    mode.write_text(" ")
    env = with_libraries(libraries[:1], DISK_MODE=str(mode), DISK_BALLAST=f"{served.ledger}.ballast")
    async with served.process(env) as process:
        async with served.load():
            mode.write_text(fault)
        assert await asyncio.wait_for(process.wait(), 20) == 1
    assert served.unavailable
    if fault == "f":
        await _operators_only(served, env)
    mode.write_text(" ")
    async with served.process(env):
        found = served.found()
    served.check(found)
    assert not found.open
    gaps = found.told("gap")
    assert sum(gap["unrecorded"] for gap in gaps) >= served.unavailable


async def _operators_only(served: Served, env: dict[str, str]) -> None:
    """A start on a full disk: no call passes, what operators do is recorded, and readiness says why."""
    async with served.process(env, ready=503), httpx.AsyncClient(headers=served.headers()) as client:
        seen = len(served.billing.seen)
        answer = await client.post(f"{served.url}/http/billing/refunds", json={"amount_cents": 4500})
        assert (answer.status_code, answer.json()["code"]) == (503, "audit.unavailable")
        person = served.headers("ada@example.com")
        opened = await client.post(
            f"{served.operators_url}/v1/tasks", json={"agents": ["agent:support"]}, headers=person
        )
        assert opened.status_code == 201
        assert len(served.billing.seen) == seen
    assert served.found().of("task", lambda one: one["task"]["id"] == opened.json()["id"])


async def test_a_file_that_may_not_grow(served: Served) -> None:
    """A limit on the size of files (EFBIG) is a disk that is full in other words."""
    async with served.process() as process:
        async with served.load():
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, resource.RLIM_INFINITY))
        assert await asyncio.wait_for(process.wait(), 40) == 1
    assert served.unavailable
    async with served.process():
        found = served.found()
    served.check(found)
    assert not found.open
    assert len(found.told("gap")) == 1


@pytest.mark.timeout(120)
async def test_a_disk_that_hangs_under_load(served: Served, libraries: tuple[Path, Path], tmp_path: Path) -> None:
    """Nobody waits longer than some ten seconds; the process ends though its disk does not answer; then as above."""
    mode = tmp_path / "mode"
    mode.write_text(" ")
    env = with_libraries(libraries[:1], DISK_MODE=str(mode))
    clock = asyncio.get_running_loop().time
    async with served.process(env) as process:
        async with served.load():
            mode.write_text("h")
            began = clock()
        assert clock() - began < 20
        assert await asyncio.wait_for(process.wait(), 30) == 1
    assert served.unavailable
    mode.write_text(" ")
    async with served.process(env):
        found = served.found()
    served.check(found)
    assert not found.open
    assert "has not answered" in found.told("gap")[0]["reason"]


@pytest.mark.timeout(120)
def _put(step: Path, to: str) -> None:
    """As a whole: a clock that looked into a file half written would step once more."""
    draft = step.with_suffix(".new")
    draft.write_text(to)
    draft.replace(step)


async def test_a_clock_that_steps_under_load(served: Served, libraries: tuple[Path, Path], tmp_path: Path) -> None:
    """An hour ahead, back, and to and fro: work goes on, recorded time never runs backwards, each step is a record."""
    step = tmp_path / "step"
    step.write_text("0")
    steps = ("3600", "0", "-3600", "0", "3600", "-3600", "0")
    async with served.process(with_libraries(libraries[1:], CLOCK_STEP=str(step))) as process:
        callers = [asyncio.create_task(served.caller(number)) for number in range(8)]
        await served.answered(40)
        for to in steps:
            _put(step, to)
            await served.answered(40)
        process.terminate()
        await asyncio.gather(*callers)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert not served.unavailable
    found = served.found()
    served.check(found)
    assert not found.open
    told = [
        ("back_us" in one, round(one.get("back_us", one.get("ahead_us", 0)) / 1e6)) for one in found.told("clock_step")
    ]
    assert told == [
        (False, 3600),
        (True, 3600),
        (True, 3600),
        (False, 3600),
        (False, 3600),
        (True, 7200),
        (False, 3600),
    ]
    assert "put forward by 3600 s" in served.said
    assert "set back by 7200 s" in served.said


async def test_what_a_clock_ahead_has_ended_stays_ended(
    served: Served, libraries: tuple[Path, Path], tmp_path: Path
) -> None:
    """A token and a task that ended by a clock put an hour ahead do not live again when it is set back, nor by a restart."""
    step = tmp_path / "step"
    step.write_text("0")
    env = with_libraries(libraries[1:], CLOCK_STEP=str(step))
    lasting, short = served.headers(exp=4_000_000_000), served.headers()
    url = f"{served.url}/http/billing/invoices/1042"

    async def outcomes(client: httpx.AsyncClient, task: str) -> list[str]:
        hints = ({}, {"whygate-task": task})
        answers = [await client.get(url, headers=lasting | more) for more in hints]
        answers.append(await client.get(url, headers=short))
        return [answer.headers["whygate-reason"] for answer in answers]

    async with served.process(env), httpx.AsyncClient() as client:
        person = served.headers("ada@example.com")
        wanted = {"agents": ["agent:support"], "ttl_s": 1800}
        opened = await client.post(f"{served.operators_url}/v1/tasks", json=wanted, headers=person)
        task = opened.json()["id"]
        assert await outcomes(client, task) == ["role.permitted"] * 3
        for to in ("3600", "0"):
            _put(step, to)
            assert await outcomes(client, task) == ["role.permitted", "task.not_usable", "agent.token_expired"]
    async with served.process(env), httpx.AsyncClient() as client:
        assert await outcomes(client, task) == ["role.permitted", "task.not_usable", "agent.token_expired"]
    served.found()
