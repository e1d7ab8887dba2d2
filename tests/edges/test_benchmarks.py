"""The benchmarks measure what they say: their parser, their checks, their percentiles, and a run of seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import big_ledger, gateway_files, machine, measures, parts, wire
from benchmarks.load import FIRST_ID, Requests, check
from benchmarks.measures import Cell
from benchmarks.report import complaints
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.served import Found

from whygate.core.policy.parse import load

ROOT = Path(__file__).resolve().parent.parent.parent
SESSIONS = [{"token": "t1", "session": "s1"}, {"token": "t2", "session": "s2"}]


def cell(system: str = "bare", *, in_flight: int = 1, calls_per_s: float = 100.0, wrong: int = 0) -> Cell:
    return Cell(
        system=system,
        in_flight=in_flight,
        repeat=0,
        calls=10,
        made=12,
        wrong=wrong,
        seconds=1.0,
        calls_per_s=calls_per_s,
        p50_ms=1.0,
        p99_ms=2.0,
        cpu_us={system: 10.0},
    )


# --- numbers ---


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.001, 1.0))
def test_a_percentile_is_a_measured_value_that_enough_values_do_not_exceed(values: list[float], share: float) -> None:
    """At least the share of all values is at most the percentile, and no smaller value would do."""
    ordered = sorted(values)
    found = measures.percentile(ordered, share)
    assert found in ordered
    below = sum(value <= found for value in ordered)
    assert below / len(ordered) >= share - 1e-9
    smaller = [value for value in ordered if value < found]
    assert not smaller or len(smaller) / len(ordered) < share


def test_percentiles_of_a_hundred() -> None:
    """The ranks that everybody can count by hand."""
    values = [float(each) for each in range(1, 101)]
    assert [measures.percentile(values, share) for share in (0.01, 0.07, 0.5, 0.99, 1.0)] == [1, 7, 50, 99, 100]
    assert measures.percentile([], 0.5) == 0
    with pytest.raises(ValueError, match="share"):
        measures.percentile(values, 0)


def test_medians_are_taken_over_repeats_and_wrong_answers_are_summed() -> None:
    """One slow repeat changes nothing; one wrong answer is never averaged away."""
    repeats = [cell(calls_per_s=100), cell(calls_per_s=10, wrong=1), cell(calls_per_s=110)]
    [middle] = measures.medians(repeats)
    assert (middle.calls_per_s, middle.wrong, middle.calls) == (100, 1, 30)
    assert measures.ratio(middle, [cell("nginx", calls_per_s=200)], "nginx") == 0.5
    assert measures.ratio(middle, [cell("nginx", in_flight=8)], "nginx") is None


def test_a_wrong_answer_and_a_silent_system_are_complaints() -> None:
    """Either makes the run fail; a clean run has nothing to say."""
    assert complaints([cell()]) == []
    assert complaints([cell(wrong=2)]) == ["bare, 1 in flight: 2 wrong"]
    silent = cell()
    silent.calls = 0
    assert "no call was answered" in complaints([silent])[0]


# --- the wire ---


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCONTENT-LENGTH: 5\r\n\r\nhello"


@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_a_message_in_pieces_is_not_read_before_it_is_whole(cut: int) -> None:
    """However the bytes are cut, there is no answer before the last one."""
    assert wire.read_message(ANSWER[:cut]) is None


def test_a_whole_message_is_read_and_what_follows_is_left() -> None:
    """Status, headers in any case, body, and where the next message begins."""
    message = wire.read_message(ANSWER + b"HTTP/1.1 200")
    assert message is not None
    assert (message.status, message.body, message.size) == (200, b"hello", len(ANSWER))
    assert message.header(b"content-type") == b"application/json"
    assert message.header(b"accept") == b""


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", b"HTTP/1.1 200 OK\r\ncontent-length: five"]
)
def test_a_message_of_unknown_length_is_no_answer(head: bytes) -> None:
    """What can't be measured honestly is an error, not a guess."""
    with pytest.raises(wire.Unreadable):
        wire.read_message(head + b"\r\n\r\n")


def test_requests_differ_and_are_well_formed() -> None:
    """Each request has its own id and text, its session in turn, and the length that it says."""
    requests = Requests(8700, "/mcp/bench", SESSIONS)
    made = [requests.next() for _ in range(3)]
    assert [asked.number for _, asked in made] == [FIRST_ID, FIRST_ID + 1, FIRST_ID + 2]
    for data, asked in made:
        message = wire.read_message(data)
        assert message is not None
        assert message.size == len(data)
        call = json.loads(message.body)
        assert (call["id"], call["params"]["arguments"]["text"]) == (asked.number, asked.text.decode())
        assert 250 < len(message.body) < 450
    assert [b"mcp-session-id: s1" in data for data, _ in made] == [True, False, True]


def answer(number: int, text: str, head: str = "") -> wire.Message:
    result = {"content": [{"type": "text", "text": text}], "isError": False}
    body = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}, separators=(",", ":")).encode()
    found = wire.read_message(wire.response(body, extra=head.encode()))
    assert found is not None
    return found


def test_a_right_answer_passes() -> None:
    """The echo of the call, and from the gateway the decision's id."""
    _, asked = Requests(1, "/", SESSIONS).next()
    text = asked.text.decode()
    assert check(answer(asked.number, text), asked, decided=False, parse=True) == ""
    assert check(answer(asked.number, text, "Whygate-Decision: d\r\n"), asked, decided=True, parse=True) == ""


def test_every_wrong_answer_is_noticed() -> None:
    """Another call's text or id, a missing decision, another status, a refusal that quotes the call."""
    _, asked = Requests(1, "/", SESSIONS).next()
    text = asked.text.decode()
    assert "echo" in check(answer(asked.number, "something else"), asked, decided=False)
    assert "id" in check(answer(asked.number + 1, text), asked, decided=False)
    assert "decision" in check(answer(asked.number, text), asked, decided=True)
    refused = wire.read_message(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
    assert refused is not None
    assert "status 403" in check(refused, asked, decided=False)
    body = b'{"id":%d,"result":{"isError":true,"content":[{"type":"text","text":"%b"}]}}' % (asked.number, asked.text)
    quoted = wire.read_message(wire.response(body))
    assert quoted is not None
    assert "result" in check(quoted, asked, decided=False, parse=True)


# --- the gateway's side ---


def test_the_policy_of_the_benchmark_is_valid_and_mostly_about_other_tools(tmp_path: Path) -> None:
    """A hundred rules load without a finding; five are about the called tool."""
    ports = {"gateway": 1, "operators": 2, "upstream": 3, "sink": 4}
    gateway_files.write(tmp_path, gateway_files.Keys(), ports)
    texts = {path.name: path.read_text() for path in (tmp_path / "policies").iterdir()}
    policy = load(texts)
    assert len(policy.rules) == gateway_files.RULES
    assert len(gateway_files.APPLYING) == 5
    assert policy.texts == load(gateway_files.policy_texts()).texts


def test_the_disk_is_looked_at(tmp_path: Path) -> None:
    """The fsync that a run saw is a number, and its probe leaves nothing behind."""
    found = machine.fsync_ms(tmp_path, count=3)
    assert 0 < found["p50"] <= found["p99"]
    assert list(tmp_path.iterdir()) == []
    assert machine.file_system(Path("/proc")) == "proc"


def test_the_parts_are_those_of_a_permitted_call(tmp_path: Path) -> None:
    """The call that the parts are timed with goes through the real flow, is permitted, and is written durably."""
    decision, completion = parts.sample()
    assert (decision.outcome, decision.resource.id) == ("permitted", gateway_files.TOOL)
    assert len(decision.evaluations) == len(gateway_files.APPLYING)
    assert completion.decision == decision.id
    rows = parts.appending(tmp_path, 0.05, levels=(2,))
    assert [row[0] for row in rows] == ["ledger append, 2 in flight"]


# --- a run ---


def bench(tmp_path: Path, *systems: str) -> dict[str, object]:
    out = tmp_path / "bench.json"
    command = [sys.executable, "benchmarks/bench.py", "--seconds", "0.3", "--warm-up", "0.1", "--repeats", "1"]
    command += ["--in-flight", "1", "4", "--folder", str(tmp_path), "--json", str(out), "--systems", *systems]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    found = json.loads(out.read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.nginx
@pytest.mark.slow
@pytest.mark.usefixtures("nginx_binary")
def test_a_short_run_measures_nginx_beside_the_bare_upstream(tmp_path: Path) -> None:
    """Every answer is right, every cell has its numbers, and nothing is left behind."""
    found = bench(tmp_path, "bare", "nginx")
    assert found["right"] is True
    cells = found["cells"]
    assert isinstance(cells, list)
    assert [(each["in_flight"], each["system"]) for each in cells] == [
        (1, "bare"),
        (1, "nginx"),
        (4, "bare"),
        (4, "nginx"),
    ]
    for each in cells:
        assert each["made"] >= each["calls"] > 0
        assert 0 < each["p50_ms"] <= each["p99_ms"]
        assert each["wrong"] == 0
    of_nginx = [each for each in cells if each["system"] == "nginx"]
    assert all(each["pss_mib"] > 0 for each in of_nginx)
    # CPU time is counted in ticks of 10 ms, of which a short cell may see none.
    assert sum(each["cpu_us"]["nginx"] for each in of_nginx) > 0


@pytest.mark.slow
def test_a_short_run_measures_the_gateway(tmp_path: Path) -> None:
    """Every call is decided, answered right, and has its spans, once."""
    found = bench(tmp_path, "gateway")
    assert found["right"] is True
    cells = found["cells"]
    assert isinstance(cells, list)
    for role in ("gateway", "projector"):
        assert sum(each["cpu_us"][role] for each in cells) > 0


# --- the large ledger ---


def test_a_large_ledger_is_one_as_gateways_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense, hashed, linked by tasks; and every question of the benchmark finds its answer in it."""
    monkeypatch.setattr(big_ledger, "LONG_CALLS", 60)
    ledger = tmp_path / "ledger.db"
    known = big_ledger.build(ledger, 3000)
    found = Found(ledger)
    assert len(found.records) == known.records >= 3000
    assert not found.open
    assert {one["effect"] for one in found.decisions.values()} == {"allow", "deny"}
    for line in big_ledger.questions(known, ledger).values():
        assert big_ledger.ask(line) > 0
