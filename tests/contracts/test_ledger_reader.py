"""What can be asked of a ledger, and that no answer costs more than it holds."""

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contracts import ledger_kit as kit
from tests.contracts.ledger_kit import SqliteRig

from whygate.flow.ports import LedgerUnavailable
from whygate.stores.reader import Ambiguous, NotFound, Reader, Wanted


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SqliteRig]:
    made = SqliteRig(tmp_path)
    made.open()
    yield made
    made.ledger.close()


async def test_why_shows_everything_about_a_decision(rig: SqliteRig) -> None:
    """Decision, completion, task and the policy's text, by the id of either, whole or short."""
    rig.ledger.put_policy("sha256:one", {"a.yaml": "policy: a"})
    call = kit.decision(task="t-1")
    call.id = "deadbeef" + call.id[8:]
    end = kit.completion(call)
    await rig.ledger.append(kit.opened(), call)
    rig.ledger.follow(end)
    await rig.ledger.append(kit.decision())
    with Reader(rig.path) as reader:
        for text in (call.id, call.id.upper(), "deadbeef", "deadbeef0", end.id):
            found = reader.why(text)
            assert found.decision.record == call
            assert found.completion is not None
            assert found.completion.record == end
            assert found.task is not None
            assert found.task.id == "t-1"
            assert found.policy == {"a.yaml": "policy: a"}


async def test_a_short_id_must_be_one_records(rig: SqliteRig) -> None:
    """A beginning that fits two records, none, or is no beginning, is said to be so."""
    await rig.ledger.append(kit.opened(), kit.decision(), kit.decision())
    with Reader(rig.path) as reader:
        with pytest.raises(Ambiguous):
            reader.find("01997a3c")
        with pytest.raises(NotFound):
            reader.find("ffffffff")
        with pytest.raises(NotFound, match="kind task"):
            reader.why(reader.task("t-1")[0].record.id)
        for text in ("0199", "not an id", "0" * 33):
            with pytest.raises(ValueError, match="is no id"):
                reader.find(text)


async def test_a_task_is_read_as_its_chain(rig: SqliteRig) -> None:
    """Opening, calls, ends, close, and stragglers after it: in order, and nothing of other tasks."""
    calls = [kit.decision(task="t-1") for _ in range(3)]
    other = kit.decision(task="t-2")
    await rig.ledger.append(kit.opened(), kit.opened("t-2"))
    await rig.ledger.append(*calls, other)
    rig.ledger.follow(kit.completion(calls[0]))
    await rig.ledger.append(kit.closed())
    rig.ledger.follow(kit.completion(calls[1]))
    await rig.ledger.append(kit.decision(task="t-1", allow=False), kit.decision(task="t-9"))
    with Reader(rig.path) as reader:
        kinds = [stored.record.kind for stored in reader.task("t-1")]
        assert kinds == ["task", *["decision"] * 3, "completion", "task", "completion", "decision"]
        assert [stored.record.kind for stored in reader.task("t-9")] == ["decision"]
        assert reader.task("t-3") == []
        assert [task.id for task in reader.tasks()] == ["t-2", "t-1"]
        assert [task.id for task in reader.tasks(open_only=True)] == ["t-2"]


async def test_a_trace_shows_its_tasks_and_what_was_placed_in_it(rig: SqliteRig) -> None:
    """What Jaeger shows under one trace id is what the ledger finds under it."""
    own, foreign, loose = (
        kit.decision(task="t-1", trace=kit.TRACE),
        kit.decision(task="t-1", trace="ef" * 16),
        kit.decision(trace=kit.TRACE),
    )
    await rig.ledger.append(kit.opened(), own, foreign, loose)
    rig.ledger.follow(kit.completion(foreign))
    rig.ledger.follow(kit.completion(own))
    await rig.ledger.append(kit.decision())
    with Reader(rig.path) as reader:
        assert [stored.record.kind for stored in reader.trace(kit.TRACE)] == [
            "task",
            "decision",
            "decision",
            "completion",
        ]
        assert [stored.record.kind for stored in reader.trace("ef" * 16)] == ["decision", "completion"]
        assert reader.trace("00" * 16) == []


async def test_search_finds_decisions_newest_first(rig: SqliteRig) -> None:
    """All that is asked for must hold; pages follow one another without a gap."""
    await rig.ledger.append(kit.opened())
    made = [
        kit.decision(allow=n % 2 == 0, agent=f"a-{n % 3}", tool=f"s/{n % 5}", task="t-1" if n % 4 == 0 else "")
        for n in range(60)
    ]
    await rig.ledger.append(*made)
    with Reader(rig.path) as reader:

        def numbers(**wanted: object) -> list[int]:
            return [stored.seq for stored in reader.search(Wanted(**wanted))]

        def expected(fits: object) -> list[int]:
            return [made[n].seq for n in reversed(range(60)) if fits(n)]  # type: ignore[operator]  a lambda of ints

        assert numbers(limit=100) == expected(lambda n: n >= 0)
        assert numbers(outcome="blocked") == expected(lambda n: n % 2)
        assert numbers(agent="a-1", tool="s/2") == expected(lambda n: n % 3 == 1 and n % 5 == 2)
        assert numbers(code="policy.no_match", agent="a-0") == expected(lambda n: n % 2 and n % 3 == 0)
        assert numbers(task="t-1", agent="a-0") == expected(lambda n: n % 4 == 0 and n % 3 == 0)
        assert numbers(agent="nobody") == []
        first = numbers(outcome="blocked", limit=10)
        assert first + numbers(outcome="blocked", limit=100, before=first[-1]) == numbers(outcome="blocked", limit=100)


async def test_since_follows_without_a_gap(rig: SqliteRig) -> None:
    """Whoever keeps the last number he saw misses nothing and sees nothing twice."""
    await rig.ledger.append(*(kit.decision() for _ in range(25)))
    with Reader(rig.path) as reader:
        seen: list[int] = []
        while page := reader.since(seen[-1] if seen else 0, 7):
            seen += [seq for seq, _ in page]
        assert seen == list(range(1, 27))
        assert reader.newest() == 26


async def test_no_question_reads_the_whole_ledger(rig: SqliteRig) -> None:
    """Every query of the reader goes by an index or a number: its plan scans no table of records."""
    await rig.ledger.append(kit.opened(), kit.decision(task="t-1"))
    with Reader(rig.path) as reader:
        asked: list[str] = []
        run = reader._db.execute
        explain = sqlite3.connect(rig.path)

        def noted(sql: str, values: object = ()) -> sqlite3.Cursor:
            asked.extend(row[3] for row in explain.execute(f"EXPLAIN QUERY PLAN {sql}", values))  # type: ignore[arg-type]  as given
            return run(sql, values)  # type: ignore[arg-type]  as given

        reader._db.execute = noted  # type: ignore[method-assign,assignment]  to see each query
        newest = rig.records()[-1].id
        reader.why(newest)
        reader.trace(kit.TRACE)
        reader.since(1)
        reader.newest()
        reader.search(Wanted(agent="agent-1", outcome="permitted"))
        reader.search(Wanted(task="t-1"))
        explain.close()
    scans = [line for line in asked if line.startswith("SCAN") and "records" in line and "chain" not in line]
    assert scans == []
    assert any("USING INDEX records_decision" in line for line in asked)
    assert any("SEARCH blocks USING PRIMARY KEY" in line for line in asked)
    assert any("records_task" in line for line in asked)
    assert any("records_trace" in line for line in asked)


def test_a_reader_of_nothing_says_so(tmp_path: Path) -> None:
    """No ledger is made by looking for one."""
    with pytest.raises(LedgerUnavailable, match="can't be read"):
        Reader(tmp_path / "ledger.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_reader_cannot_write(rig: SqliteRig) -> None:
    """Reading leaves the ledger as it is."""
    with Reader(rig.path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("INSERT INTO meta VALUES ('a', 'b')")


async def test_the_ledger_can_be_read_by_hand(rig: SqliteRig) -> None:
    """The view that the manual names shows decisions as plain rows and JSON."""
    call = kit.decision()
    await rig.ledger.append(call)
    other = sqlite3.connect(rig.path)
    row = other.execute("SELECT seq, time, id, outcome, code, agent, tool, record FROM decisions").fetchone()
    other.close()
    assert row[0] == 2
    assert row[2:7] == (call.id.replace("-", ""), "permitted", "role.permitted", "agent-1", "s/read")
    assert json.loads(row[7])["time"][:19] == row[1][:19]


async def test_the_manual_can_be_followed(rig: SqliteRig) -> None:
    """Each query of docs/ledger.md runs on a ledger of this version."""
    await rig.ledger.append(kit.opened(), kit.decision(task="t-1"))
    manual = (Path(kit.__file__).parents[2] / "docs" / "ledger.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```", manual, re.DOTALL)
    other = sqlite3.connect(f"file:{rig.path}?mode=ro", uri=True)
    if sqlite3.sqlite_version_info < (3, 41):
        other.create_function("unhex", 1, bytes.fromhex)
    for query in queries:
        other.execute(query).fetchall()
    tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    other.close()
    assert len(queries) > 5
    assert tables == set(re.findall(r"^\| `(\w+)`", manual, re.MULTILINE)) | {"sqlite_sequence"} & tables
