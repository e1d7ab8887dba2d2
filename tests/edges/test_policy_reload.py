"""New policies without a restart: what comes into force, what stays, and what is told of it."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.gatekeeping import AGENT, RULES, World, call

from whygate.core.policy.errors import PolicyErrors
from whygate.core.reasons import Code
from whygate.flow import policies, reloading
from whygate.flow.policies import AT_START, Asked, Cause
from whygate.flow.ports import LedgerUnavailable
from whygate.flow.reloading import PolicyReloader, Unsettled
from whygate.policy_files import PolicyFolder
from whygate.testing.ledger import MemoryLedger

NOW = Asked(cause=Cause.COMMAND, by=AGENT)
BAD = RULES.replace("permit: {}", "permit: {}\n    when: args.x >")


def version(number: int) -> str:
    return RULES.replace("version: 1", f"version: {number}")


class Place:
    """A gatekeeper whose policies lie in a folder."""

    def __init__(self, folder: Path, ledger: MemoryLedger | None = None) -> None:
        self.folder = folder
        self.world = World(ledger)
        self.reloader = PolicyReloader(self.world.policies, PolicyFolder(folder))

    @property
    def ledger(self) -> MemoryLedger:
        return self.world.ledger

    async def start(self) -> "Place":
        await self.reloader.start(self.kept, self.ledger.policy_in_force())
        return self

    def kept(self, digest: str) -> Mapping[str, str]:
        return self.ledger.disk.policies.get(digest, {})

    def put(self, text: str, name: str = "support.yaml") -> None:
        """As an editor that knows its trade: beside it, then in its place."""
        (self.folder / ".new").write_text(text)
        (self.folder / ".new").rename(self.folder / name)

    def events(self) -> list[str]:
        return [record.event for record in self.ledger.of("policy")]

    def again(self) -> "Place":
        """The same ledger and folder after a restart."""
        self.ledger.close()
        return Place(self.folder, MemoryLedger(self.ledger.disk, wall=lambda: self.world.wall_us))


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "support.yaml").write_text(RULES)
    return await Place(folder).start()


async def until(holds: Callable[[], Any]) -> None:
    """Wait for what the watch brings about; it has nothing else to wait for."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not come about within ten seconds"
        await asyncio.sleep(0.005)


# --- on command ---


async def test_an_edit_comes_into_force_as_a_whole_and_says_who_wanted_it(place: Place) -> None:
    """The next decision is by the new set, whose record names its digest, its files, the cause and the person."""
    before = await place.world.gate.admit(call())
    place.put(version(2))
    done = await place.reloader.reload(NOW)
    after = await place.world.gate.admit(call())
    assert done.event == "in_force"
    assert before.decision.policy_digest != after.decision.policy_digest == done.digest
    record = place.ledger.of("policy")[-1]
    assert (record.event, record.cause, record.subject.id, record.digest) == (
        "in_force",
        "command",
        AGENT.id,
        done.digest,
    )
    assert place.ledger.disk.policies[done.digest] == {"support.yaml": version(2)}
    assert place.world.policies.since == record.time


async def test_what_did_not_change_is_no_event(place: Place) -> None:
    """The same texts are the same set, whenever they were written."""
    place.put(RULES)
    done = await place.reloader.reload(NOW)
    assert (done.event, place.events()) == ("unchanged", ["in_force"])


async def test_a_bad_edit_changes_nothing_and_is_recorded_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The last good set decides on; the refusal has file, line and column in record, answer and log, one time each."""
    good = place.world.policies.current
    place.put(BAD)
    with caplog.at_level(logging.ERROR):
        first, second = await place.reloader.reload(NOW), await place.reloader.reload(NOW)
    assert (first.event, second.event, second.errors) == ("refused", "refused", first.errors)
    assert place.world.policies.current is good
    assert (await place.world.gate.admit(call())).allowed
    assert place.events() == ["in_force", "refused"]
    refused = place.ledger.of("policy")[-1]
    assert refused.digest == ""
    assert refused.errors[0].startswith("support.yaml:10:18: Syntax error")
    assert [record.message.count(refused.errors[0]) for record in caplog.records] == [1]
    assert place.world.policies.refusal is not None
    assert place.world.policies.refusal.at == refused.time


async def test_a_fixed_edit_comes_in_and_the_refusal_is_over(place: Place) -> None:
    """Whether it is a new set or again the one in force; and the same mistake after a new set is a new event."""
    place.put(BAD)
    await place.reloader.reload(NOW)
    place.put(RULES)
    assert (await place.reloader.reload(NOW)).event == "unchanged"
    assert place.world.policies.refusal is None
    place.put(BAD)
    await place.reloader.reload(NOW)
    assert place.world.policies.refusal is not None
    place.put(version(2))
    assert (await place.reloader.reload(NOW)).event == "in_force"
    assert place.world.policies.refusal is None
    place.put(BAD)
    await place.reloader.reload(NOW)
    assert place.events() == ["in_force", "refused", "in_force", "refused"]


async def test_a_folder_that_is_gone_leaves_the_last_good_set(place: Place) -> None:
    """Nothing there is no set of no rules: it is refused, and what was in force stays. An empty folder is one."""
    (place.folder / "support.yaml").unlink()
    empty = await place.reloader.reload(NOW)
    assert empty.event == "in_force"
    assert (await place.world.gate.admit(call())).decision.code is Code.POLICY_NO_MATCH
    place.folder.rmdir()
    gone = await place.reloader.reload(NOW)
    assert (gone.event, gone.digest) == ("refused", empty.digest)
    assert "no such file" in place.ledger.of("policy")[-1].errors[0]


async def test_looks_come_one_after_the_other(place: Place) -> None:
    """Ten commands at once are one new set: no set overtakes another."""
    place.put(version(2))
    done = await asyncio.gather(*(place.reloader.reload(NOW) for _ in range(10)))
    assert sorted(one.event for one in done) == ["in_force"] + ["unchanged"] * 9
    assert place.events() == ["in_force"] * 2


async def test_who_gives_up_waiting_stops_nothing(place: Place) -> None:
    """A client that leaves between record and swap would leave a gateway that permits nothing."""
    place.put(version(2))
    asked = asyncio.create_task(place.reloader.reload(NOW))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await place.reloader.finish()
    current = place.world.policies.current
    assert current is not None
    assert current.digest == place.ledger.policy_in_force()
    assert current.policies[0].version == 2
    assert (await place.world.gate.admit(call())).allowed


async def test_a_set_that_is_being_written_is_not_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes while it is read is read again, and given up after some tries, with nothing recorded."""
    numbers = iter(range(2, 1000))
    plain = PolicyFolder.read

    def read(folder: PolicyFolder) -> dict[str, str]:
        texts = plain(folder)
        place.put(version(next(numbers)))
        return texts

    with monkeypatch.context() as patched:
        patched.setattr(PolicyFolder, "read", read)
        with pytest.raises(Unsettled):
            await place.reloader.reload(NOW)
    assert place.events() == ["in_force"]
    assert next(numbers) == 2 + reloading.READ_TRIES
    assert (await place.reloader.reload(NOW)).event == "in_force"


async def test_a_ledger_that_cant_write_lets_nothing_into_force(place: Place) -> None:
    """No record, no policy: the old set stays, though nothing passes by it either."""
    good = place.world.policies.current
    place.put(version(2))
    place.ledger.fail_next(written=False)
    with pytest.raises(LedgerUnavailable):
        await place.reloader.reload(NOW)
    assert place.world.policies.current is good


async def test_pythons_own_rhythm_comes_back(place: Place) -> None:
    """The loop's turns are kept short while a thread compiles, and only then."""
    usual = sys.getswitchinterval()
    during: list[float] = []
    monitored = place.reloader._folder

    class Watching:
        def seen(self) -> Any:
            during.append(sys.getswitchinterval())
            return monitored.seen()

        def read(self) -> Mapping[str, str]:
            return monitored.read()

    place.reloader._folder = Watching()
    await place.reloader.reload(NOW)
    assert max(during) < usual
    assert sys.getswitchinterval() == usual


# --- by itself ---


@pytest.fixture
async def watched(place: Place, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(reloading, "WATCH_S", 0.02)
    watch = asyncio.create_task(place.reloader.watch())
    yield place
    watch.cancel()
    await place.reloader.finish()


def in_force(place: Place, number: int) -> bool:
    current = place.world.policies.current
    return current is not None and [one.version for one in current.policies] == [number]


async def test_the_watch_takes_edits_refuses_bad_ones_and_takes_their_repair(watched: Place) -> None:
    """In place, by renaming, in a folder below, and away again: the cause is the folder, and each fact one record."""
    (watched.folder / "support.yaml").write_text(version(2))
    await until(lambda: in_force(watched, 2))
    watched.put(BAD)
    await until(lambda: watched.world.policies.refusal)
    await until(lambda: watched.events().count("refused") == 1)
    watched.put(version(3))
    await until(lambda: in_force(watched, 3))
    assert watched.world.policies.refusal is None
    (watched.folder / "more").mkdir()
    (watched.folder / "more" / "other.yaml").write_text(RULES.replace("policy: support", "policy: other"))
    await until(lambda: len(watched.world.policies.current.policies) == 2)  # type: ignore[union-attr]  one is in force
    (watched.folder / "more" / "other.yaml").unlink()
    await until(lambda: in_force(watched, 3))
    assert watched.events() == ["in_force", "in_force", "refused", "in_force", "in_force", "in_force"]
    assert {record.cause for record in watched.ledger.of("policy")[1:]} == {"folder"}


async def test_a_mounted_configmap_is_swapped_by_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes writes a new folder and bends one link: names, sizes and times of the links stay as they were."""
    folder = tmp_path / "mounted"
    for number in (1, 2):
        (folder / f"..{number}").mkdir(parents=True)
        (folder / f"..{number}" / "support.yaml").write_text(version(number))
        os.utime(folder / f"..{number}" / "support.yaml", (1_700_000_000, 1_700_000_000))
    (folder / "..data").symlink_to("..1")
    (folder / "support.yaml").symlink_to("..data/support.yaml")
    place = await Place(folder).start()
    monkeypatch.setattr(reloading, "WATCH_S", 0.02)
    watch = asyncio.create_task(place.reloader.watch())
    (folder / "..data_tmp").symlink_to("..2")
    (folder / "..data_tmp").rename(folder / "..data")
    await until(lambda: in_force(place, 2))
    watch.cancel()


async def test_a_folder_may_be_a_link_to_a_release(tmp_path: Path) -> None:
    """Bending it to another release is a change, and going back is one."""
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "support.yaml").write_text(version(number))
    (tmp_path / "current").symlink_to("1")
    place = await Place(tmp_path / "current").start()
    seen = place.reloader._folder.seen()
    for number in (2, 1):
        (tmp_path / "next").symlink_to(str(number))
        (tmp_path / "next").rename(tmp_path / "current")
        assert (place.reloader._folder.seen() == seen) is (number == 1)
        await place.reloader.reload(NOW)
        assert in_force(place, number)


async def test_a_folder_that_does_not_stand_still_is_not_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch reads only what looked the same for a whole interval."""
    monkeypatch.setattr(reloading, "WATCH_S", 0.0)
    looks = iter(range(50))
    reads = []

    class Restless:
        def seen(self) -> int:
            return next(looks, 50)

        def read(self) -> Mapping[str, str]:
            reads.append(next(looks, None))
            return {"support.yaml": version(2)}

    place.reloader._folder = Restless()
    watch = asyncio.create_task(place.reloader.watch())
    await until(lambda: in_force(place, 2))
    watch.cancel()
    assert reads == [None]


async def test_a_change_after_the_look_is_left_to_the_next(place: Place) -> None:
    """What the watch saw standing still is what is read, or nothing is."""
    seen = place.reloader._folder.seen()
    place.put(version(2))
    with pytest.raises(Unsettled):
        await place.reloader.reload(NOW, seen)
    assert place.events() == ["in_force"]


async def test_the_watch_survives_whatever_happens(
    watched: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours in the middle is logged, and the next change is taken as if nothing had been."""
    with monkeypatch.context() as patched:
        patched.setattr(policies, "load", lambda _: 1 / 0)
        watched.put(version(2))
        await until(lambda: "unforeseen" in caplog.text)
    watched.put(version(3))
    await until(lambda: in_force(watched, 3))


def test_a_change_of_rights_or_of_a_date_is_seen(tmp_path: Path) -> None:
    """What could not be read may be readable now; and a copy that sets dates back is a change nevertheless."""
    (tmp_path / "a.yaml").write_text("a")
    folder = PolicyFolder(tmp_path)
    looks = [folder.seen()]
    (tmp_path / "a.yaml").chmod(0o600)
    looks.append(folder.seen())
    os.utime(tmp_path / "a.yaml", (1, 1))
    looks.append(folder.seen())
    (tmp_path / "b.yaml").symlink_to("nowhere")
    looks.append(folder.seen())
    (tmp_path / "c").symlink_to(tmp_path)
    looks.append(folder.seen())
    assert len(set(looks)) == len(looks)
    assert folder.seen() == looks[-1]
    assert PolicyFolder(tmp_path / "nowhere").seen() == PolicyFolder(tmp_path / "nowhere").seen()
    assert PolicyFolder(tmp_path / "a.yaml").seen() != PolicyFolder(tmp_path / "b.yaml").seen()


# --- at start ---


@pytest.mark.parametrize("gone", [False, True], ids=["bad edit", "folder gone"])
async def test_a_restart_with_a_bad_folder_goes_on_with_the_last_good_set(
    place: Place, caplog: pytest.LogCaptureFixture, *, gone: bool
) -> None:
    """A restart changes nothing of what is permitted: decision 0005. It is recorded and said aloud."""
    good = place.ledger.policy_in_force()
    if gone:
        place.folder.rename(place.folder.with_name("elsewhere"))
    else:
        place.put(BAD)
    again = await place.again().start()
    current = again.world.policies.current
    assert current is not None
    assert current.digest == good
    assert again.world.policies.refusal is not None
    assert "last good ones" in caplog.text
    assert again.events() == ["in_force", "refused"]
    assert (await again.world.gate.admit(call())).decision.policy_digest == good


async def test_a_first_start_with_a_bad_folder_starts_nothing(tmp_path: Path) -> None:
    """There is no last good set: the errors are told, and recorded."""
    (tmp_path / "support.yaml").write_text(BAD)
    place = Place(tmp_path)
    with pytest.raises(PolicyErrors):
        await place.start()
    assert place.events() == ["refused"]
    assert place.world.policies.current is None


async def test_kept_texts_that_are_not_those_of_the_digest_are_not_taken(place: Place) -> None:
    """The ledger's text counts only if it is what the ledger's digest says; then nothing is started."""
    place.put(BAD)
    good = place.ledger.policy_in_force()
    for kept in ({}, {"support.yaml": version(9)}):
        again = place.again()
        with pytest.raises(PolicyErrors):
            await again.reloader.start(lambda _, kept=kept: kept, good)
        assert again.world.policies.current is None
        place = again


async def test_a_set_that_this_version_cant_read_any_more_is_not_taken(place: Place) -> None:
    """After an upgrade the last good set is checked like any other."""
    place.put(BAD)
    texts = {"support.yaml": BAD}
    again = place.again()
    digest = policies.digest_of(texts)
    again.ledger._book.state.policy = digest
    with pytest.raises(PolicyErrors):
        await again.reloader.start(lambda _: texts, digest)
    assert AT_START.cause is Cause.START
