"""The projector against a real HTTP server that decodes what it gets with the official messages."""

import contextlib
import gc
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.servers import otlp_sink
from tests.servers.otlp_sink import Answer, Sink, spans_of, tags
from tests.telemetry_records import Shelf, completion, decision, numbered, start, story, task

from whygate.core import ids
from whygate.core.calls import Hints, Tool, ToolCall, TraceParent
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.reasons import Code
from whygate.flow.catalogue import Catalogue
from whygate.flow.gatekeeper import Gatekeeper, Surroundings
from whygate.flow.policies import Policies
from whygate.flow.tasks import Tasks
from whygate.flow.world import RandomIds
from whygate.telemetry import building, names, projector, status
from whygate.telemetry.metrics import Metrics
from whygate.telemetry.otlp import Collector, Encoder, Fate, Sent, retry_after
from whygate.telemetry.projector import Projector, Round
from whygate.testing.authority import authority
from whygate.testing.ledger import MemoryLedger

OK = Sent(fate=Fate.TAKEN)
LATER = Sent(fate=Fate.LATER, note="down")


OPEN: list[Collector] = []


def collector(url: str, kind: type[Collector] = Collector, **options: object) -> Collector:
    """A collector that is closed when the test is over, however its projector ended."""
    OPEN.append(kind(url, **options))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


class Killed(BaseException):
    """The process ends here: no handler of ours may run."""


@pytest.fixture
def sink() -> Iterator[Sink]:
    with otlp_sink.running() as found:
        yield found


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def project(shelf: Shelf, sink: Sink, ledger: Path, **options: object) -> Projector:
    return Projector(shelf, collector(sink.url, **options), Encoder("whygate"), ledger)


def drain(it: Projector) -> list[Round]:
    done = [it.step()]
    while done[-1] is Round.MOVED:
        done.append(it.step())
    return done


def test_a_story_arrives_as_its_spans(sink: Sink, ledger: Path) -> None:
    """Every decision of a task is one SERVER span with its outcome, in the task's trace and under its root."""
    drain(project(Shelf(story()), sink, ledger))
    found = sink.spans()
    assert len({span.trace_id for span in found}) == 1
    by_id = {span.span_id: span for span in found}
    assert len(by_id) == len(found)
    roots = [span for span in found if not span.parent_span_id]
    assert [root.name for root in roots] == ["invoke_workflow refund-claim"]
    assert all(span.parent_span_id in by_id for span in found if span.parent_span_id)
    servers = [span for span in found if span.kind == Span.SPAN_KIND_SERVER]
    assert sorted(tags(span)[names.REASON] for span in servers) == sorted(
        json.loads(data)["reason"]["code"] for _, data in story() if b'"kind":"decision"' in data
    )
    assert status.load_cursor(status.cursor_path(ledger)).seq == len(story())


def test_the_resource_is_the_writer_and_its_start(sink: Sink, ledger: Path) -> None:
    """Whose spans they are comes from the records: no process, version or chance in it, so a replay is the same."""
    drain(project(Shelf(story()), sink, ledger))
    (group,) = sink.taken
    told = {pair.key: pair.value.string_value for pair in group.resource.attributes}
    assert told == {
        "service.name": "whygate",
        "service.instance.id": "w-1",
        "host.name": "gate-1",
        "ip": "10.0.0.7",
    }
    assert group.scope_spans[0].scope.name == "whygate"
    assert not group.scope_spans[0].scope.version


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 512])
@pytest.mark.parametrize("point", ["read", "before sending", "after sending", "before the rename", "after the rename"])
def test_killed_anywhere_it_sends_the_same_spans(
    batch: int, point: str, sink: Sink, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any step of any round and started again, the same span never comes in two forms, and none is missing."""
    monkeypatch.setattr(projector, "BATCH", batch)
    with otlp_sink.running() as reference:
        drain(project(Shelf(story()), reference, ledger.with_name("other.db")))
    shelf = Shelf(story())
    rename = Path.replace
    deadly, deaths = True, 0

    def die(at: str) -> None:
        nonlocal deaths
        if deadly and at == point:
            deaths += 1
            raise Killed

    class Source(Shelf):
        def since(self, seq: int, limit: int) -> list[tuple[int, bytes]]:
            found = shelf.since(seq, limit)
            die("read")
            return found

    class Deadly(Collector):
        def send(self, body: bytes) -> Sent:
            die("before sending")
            sent = super().send(body)
            die("after sending")
            return sent

    def replace(path: Path, target: Path) -> Path:
        die("before the rename")
        done = rename(path, target)
        die("after the rename")
        return done

    monkeypatch.setattr(Path, "replace", replace)
    done = Round.MOVED
    while done is Round.MOVED:
        # One life dies at the point, the next gets a round through: so each round is died in, and each is begun again.
        deadly = True
        with contextlib.suppress(Killed):
            drain(Projector(Source(shelf.records), collector(sink.url, Deadly), Encoder("whygate"), ledger))
        deadly = False
        done = Projector(shelf, collector(sink.url), Encoder("whygate"), ledger).step()
    assert deaths >= len(shelf.records) // batch // 2
    assert deaths > 0
    assert sink.seen() == reference.seen()
    assert all(len(forms) == 1 for forms in sink.seen().values())


def test_what_was_sent_is_let_go(sink: Sink) -> None:
    """A body is as large as some thousand calls: it does not wait for the collector of garbage."""
    sent = Encoder("whygate").encode([]) + b"\x0a\x00" * 1000
    to = collector(sink.url)
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(sent)
        assert to.send(sent).fate is Fate.TAKEN
        assert sys.getrefcount(sent) == before
    finally:
        gc.enable()
    assert sink.bodies[-1] == sent
    assert sink.headers[-1]["content-length"] == str(len(sent))


def test_a_lost_cursor_replays_the_same(sink: Sink, ledger: Path) -> None:
    """Without its cursor, or with one that can't be read, everything is sent again, unchanged."""
    drain(project(Shelf(story()), sink, ledger))
    once = sink.seen()
    status.cursor_path(ledger).write_text("{not json")
    drain(project(Shelf(story()), sink, ledger))
    assert sink.seen() == once
    assert len(sink.spans()) == 2 * len(once)


def test_a_moved_host_does_not_change_what_was_sent(sink: Sink, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resource is that of the start before the record, also where a new projector begins after it."""
    monkeypatch.setattr(projector, "BATCH", 1)
    first, second = decision(2, Code.POLICY_NO_MATCH), decision(3, Code.POLICY_NO_MATCH)
    shelf = Shelf(numbered(start(host="a", ip="10.0.0.1"), first, start(901, host="b", ip="10.0.0.2"), second))
    while project(shelf, sink, ledger).step() is Round.MOVED:
        pass
    hosts = [pair.value.string_value for group in sink.taken for pair in group.resource.attributes]
    assert [host for host in hosts if host in {"a", "b"}] == ["a", "b"]


def test_a_ledger_in_anothers_place_is_read_from_its_start(sink: Sink, ledger: Path) -> None:
    """A cursor of another ledger skips nothing of this one, whether that one is shorter or as long."""
    drain(project(Shelf(story()), sink, ledger))
    for others in (numbered(start(902), decision(40, Code.POLICY_NO_MATCH)), numbered(decision(41, Code.TOOL_UNKNOWN))):
        before = len(sink.spans())
        drain(project(Shelf(others), sink, ledger))
        assert len(sink.spans()) > before


def test_a_call_in_flight_holds_nobody_up(sink: Sink, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that does not end delays no other call's spans, and has its own when it ends, in whichever projector."""
    monkeypatch.setattr(building, "PENDING", 1)
    slow, quick, other = decision(2), decision(3), decision(4)
    rows = numbered(slow, quick, other, completion(quick), completion(other), completion(slow))
    shelf = Shelf(rows[:5])
    drain(project(shelf, sink, ledger))
    assert {tags(span)[names.DECISION] for span in sink.spans()} == {quick.id, other.id}
    shelf.records = rows
    drain(project(shelf, sink, ledger))
    assert {tags(span)[names.DECISION] for span in sink.spans()} == {quick.id, other.id, slow.id}
    assert slow.id in shelf.looked_up


@pytest.mark.parametrize("code", [408, 429, 502, 503, 504, 400, 401, 404, 413, 500])
def test_a_collector_that_takes_nothing_loses_nothing(code: int, sink: Sink, ledger: Path) -> None:
    """Whatever status a collector answers everything with, the cursor stands and the lag shows, until it takes spans."""
    sink.answer = lambda _: Answer(status=code, headers={"retry-after": "7"})
    it = project(Shelf(story()), sink, ledger)
    assert [it.step(), it.step()] == [Round.STUCK, Round.STUCK]
    assert not status.cursor_path(ledger).exists()
    assert it.status.waiting_since_us > 0
    assert str(code) in it.status.trouble
    assert it.after_s == (7.0 if code in {408, 429, 502, 503, 504} else 0.0)
    sink.answer = lambda _: Answer()
    drain(it)
    assert len(sink.seen()) == len(sink.spans()) > 20
    assert (it.status.trouble, it.status.waiting_since_us, it.status.refused) == ("", 0, 0)


def test_a_collector_that_is_down_or_slow_loses_nothing(sink: Sink, ledger: Path) -> None:
    """No connection, or no answer in time: the same bytes again."""
    with otlp_sink.running() as gone:
        url = gone.url
    shelf = Shelf(story())
    it = Projector(shelf, collector(url), Encoder("whygate"), ledger)
    assert it.step() is Round.STUCK
    hold = threading.Event()

    def slowly(_: ExportTraceServiceRequest) -> Answer:
        hold.wait(5)
        return Answer()

    sink.answer = slowly
    assert project(shelf, sink, ledger, timeout_s=0.05).step() is Round.STUCK
    hold.set()
    drain(project(shelf, sink, ledger))
    assert all(len(forms) == 1 for forms in sink.seen().values())
    assert len(sink.seen()) > 20


def test_one_span_that_no_collector_takes_is_left_out_alone(sink: Sink, ledger: Path) -> None:
    """A request that is refused for one of its spans is halved until that one is found, counted and left out."""

    def picky(request: ExportTraceServiceRequest) -> Answer:
        bad = [span for group in request.resource_spans for span in spans_of(group) if "crm/" in span.name]
        return Answer(status=400 if bad else 200)

    sink.answer = picky
    it = project(Shelf(story()), sink, ledger)
    drain(it)
    with otlp_sink.running() as reference:
        drain(project(Shelf(story()), reference, ledger.with_name("other.db")))
    missing = [span.name for span in reference.spans() if span.span_id.hex() not in sink.seen()]
    assert missing == ["tools/call crm/customer_export"]
    assert (it.status.refused, it.status.exported) == (1, len(sink.seen()))


def test_halving_that_is_interrupted_goes_on_later(sink: Sink, ledger: Path) -> None:
    """Where the collector goes away while the bad span is sought, the round is done again and the span counted once."""
    requests = 0

    def picky(request: ExportTraceServiceRequest) -> Answer:
        nonlocal requests
        requests += 1
        bad = [span for group in request.resource_spans for span in spans_of(group) if "crm/" in span.name]
        return Answer(status=503 if requests % 7 == 0 else 400 if bad else 200)

    sink.answer = picky
    it = project(Shelf(story()), sink, ledger)
    done = [it.step()]
    while Round.IDLE not in done[-1:]:
        done.append(it.step())
    assert Round.STUCK in done
    assert it.status.refused == 1


def test_a_413_is_answered_with_smaller_requests(sink: Sink, ledger: Path) -> None:
    """A collector with a small limit gets everything, in pieces."""
    sink.answer = lambda request: Answer(status=413 if request.ByteSize() > 3000 else 200)
    it = project(Shelf(story()), sink, ledger)
    drain(it)
    assert it.status.refused == 0
    assert it.status.exported == len(sink.seen()) > 20


def test_partial_success_is_counted_and_not_repeated(
    sink: Sink, ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Spans that a collector dropped of what it took are counted and logged; the specification forbids sending them again."""
    sink.answer = lambda _: Answer(rejected=2, note="too old")
    it = project(Shelf(story()), sink, ledger)
    drain(it)
    assert it.status.rejected == 2
    assert len(sink.bodies) == 1
    assert "too old" in caplog.text


def test_a_record_that_can_not_be_read_stops_nothing(sink: Sink, ledger: Path) -> None:
    """Broken bytes, unknown kinds and completions of nothing are passed by; what is broken is counted."""
    rows = numbered(decision(2, Code.POLICY_NO_MATCH), completion(decision(3)), decision(4, Code.TOOL_UNKNOWN))
    unknown = b'{"id":"x","kind":"not_yet_known","v":9}'
    broken = b'{"id":"x","kind":"decision"}'
    it = project(Shelf([*rows, (4, unknown), (5, broken), (6, b"\xff")]), sink, ledger)
    drain(it)
    assert len([span for span in sink.spans() if span.kind == Span.SPAN_KIND_SERVER]) == 2
    assert (it.status.unreadable, it.status.seq) == (3, 6)


def test_gzip_and_headers(sink: Sink, ledger: Path) -> None:
    """Compressed requests carry the same spans; configured headers are sent."""
    packed = collector(sink.url, headers={"authorization": "Bearer t"}, compress=True)
    drain(Projector(Shelf(story()), packed, Encoder("whygate"), ledger))
    assert sink.headers[0]["authorization"] == "Bearer t"
    assert sink.headers[0]["content-encoding"] == "gzip"
    assert len(sink.seen()) > 20


def test_equal_spans_are_equal_bytes() -> None:
    """An encoder that has seen much and a fresh one encode a span alike."""
    found = [span for row in [story()] for span in building.Builder(Shelf(row).decision, ()).build(row).spans]
    used = Encoder("whygate")
    used.encode(found)
    assert used.encode(found) == Encoder("whygate").encode(found)


def test_statuses_and_links_are_on_the_wire(sink: Sink, ledger: Path) -> None:
    """Error with the reason code as its text, otherwise unset; a foreign trace is a link."""
    drain(project(Shelf(story()), sink, ledger))
    by_reason = {tags(span)[names.REASON]: span for span in sink.spans() if span.kind == Span.SPAN_KIND_SERVER}
    assert by_reason["policy.no_match"].status.code == Status.STATUS_CODE_ERROR
    assert by_reason["policy.no_match"].status.message == "policy.no_match"
    assert by_reason["step_up.required"].status.code == Status.STATUS_CODE_UNSET
    (link,) = by_reason["tool.unknown"].links
    assert (link.trace_id.hex(), link.span_id.hex()) == ("d" * 32, "c" * 16)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 0), ("7", 7), (" 7 ", 7), ("99999", 300), ("-3", 0), ("soon", 0), ("Thu, 01 Jan 1970 00:01:40 GMT", 60)],
)
def test_retry_after(text: str, seconds: float) -> None:
    """Both forms of Retry-After are understood and bounded; nonsense counts as none."""
    assert retry_after(text, now_s=40.0) == seconds


def test_told_to_stop_it_sends_what_is_left(sink: Sink, ledger: Path) -> None:
    """A projector whose gateway is gone exports what the ledger holds, and ends."""
    stop = threading.Event()
    stop.set()
    it = project(Shelf(story()), sink, ledger)
    it.run(stop)
    assert len(sink.seen()) > 20
    assert status.load_status(status.status_path(ledger)) == it.status


def test_told_to_stop_it_does_not_wait_for_a_collector(ledger: Path) -> None:
    """While the collector is down, stopping takes one more try and no longer."""
    tried = 0

    class Down:
        def send(self, body: bytes) -> Sent:
            nonlocal tried
            tried += 1
            stop.set()
            return Sent(fate=Fate.LATER, note="down", after_s=300.0)

    stop = threading.Event()
    Projector(Shelf(story()), Down(), Encoder("whygate"), ledger).run(stop)
    assert tried == 2


class Source(Shelf):
    """Fails as a busy or damaged ledger does."""

    def since(self, seq: int, limit: int) -> list[tuple[int, bytes]]:
        raise OSError("disk")


def test_a_ledger_that_can_not_be_read_is_tried_again(ledger: Path, sink: Sink) -> None:
    """A ledger that fails for a while ends nothing: the trouble is told, and reading goes on."""
    it = project(Source([]), sink, ledger)
    assert it._try() is Round.STUCK
    assert "OSError" in it.status.trouble
    it._source = Shelf(story())
    assert it._try() is Round.MOVED
    assert it.status.trouble == ""


async def decide_with(ledger: MemoryLedger, call: ToolCall) -> None:
    new_ids = RandomIds()
    around = Surroundings(
        ledger=ledger,
        policies=Policies(ledger, new_ids),
        tasks=Tasks(ledger, ledger, new_ids, b"t" * 32, b"d" * 32),
        authority=authority(ledger, ledger, new_ids),
        catalogue=Catalogue({}),
        clock=ledger,
        ids=new_ids,
        digest_key=b"d" * 32,
        observer=Metrics(version="test"),
    )
    await Gatekeeper(around).admit(call)


SECRET = "s3cr3t-hunter2"
CALLER = Principal(
    id="spiffe://example.com/agent/payments",
    type=IdentityType.AI_AGENT,
    proof=Proof.JWT,
    owner=SECRET,
    credential=SECRET,
    issuer=SECRET,
    roles=(SECRET,),
)


async def test_a_forged_traceparent_does_not_move_a_refusal(ledger: Path, sink: Sink) -> None:
    """Decided by the real gatekeeper: a call with a trace of its own choice is refused in its task's trace, and links."""
    books = MemoryLedger()
    forged = TraceParent(trace_id="e" * 32, span_id="f" * 16)
    await decide_with(
        books, ToolCall(protocol="mcp", method="tools/call", principal=CALLER, hints=Hints(parent=forged))
    )
    rows = list(enumerate(books.disk.leaves, 1))
    drain(project(Shelf(rows), sink, ledger))
    (opened,) = books.of("task")
    found = {span.name: span for span in sink.spans()}
    server = found["tools/call _unknown"]
    assert server.trace_id.hex() == opened.task.trace_id != forged.trace_id
    assert server.parent_span_id.hex() == ids.span_id("root", opened.task.trace_id)
    assert [link.trace_id.hex() for link in server.links] == [forged.trace_id]


async def test_no_secret_of_a_call_is_exported(ledger: Path, sink: Sink) -> None:
    """A secret in every field of a call, decided by the real gatekeeper, is nowhere in the bytes that leave."""
    books = MemoryLedger()
    tool = Tool(server="billing", name=SECRET, type="mcp", known=False)
    for asked in (None, tool):
        call = ToolCall(
            protocol="mcp",
            method="tools/call",
            server="billing",
            tool=asked,
            asked=SECRET,
            args={SECRET: SECRET, "nested": [{"token": SECRET}]},
            principal=CALLER,
            client=SECRET,
            hints=Hints(workflow=SECRET, incident=SECRET, session=SECRET),
            version=SECRET,
            request_id=SECRET,
        )
        await decide_with(books, call)
    drain(project(Shelf(list(enumerate(books.disk.leaves, 1))), sink, ledger))
    assert [span.kind for span in sink.spans()].count(Span.SPAN_KIND_SERVER) == 2
    assert SECRET.encode() not in b"".join(books_ for books_ in sink.bodies)


def test_tasks_of_many_writers_keep_apart(sink: Sink, ledger: Path) -> None:
    """Records of several writers go out under a resource each."""
    mine, theirs = numbered(task(1)), numbered(task(2), writer="w-2")
    drain(project(Shelf([*mine, (2, theirs[0][1])]), sink, ledger))
    told = [pair.value.string_value for group in sink.taken for pair in group.resource.attributes]
    assert [value for value in told if value.startswith("w-")] == ["w-1", "w-2"]
