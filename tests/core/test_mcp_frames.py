"""Server-sent events taken apart."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whygate.mcp.frames import Frames, FrameTooLarge, event

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data",
        b"data: a:b",
        b": ping",
        b"event: message",
        b"id: 7",
        b"retry: 10",
        b"other: 1",
        b"",
    ]
)


def _fields(stream: bytes, cuts: list[int]) -> tuple[list[tuple[bytes | None, bytes, bool]], bytes]:
    parser = Frames(1 << 20)
    found = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, stop in itertools.pairwise(edges):
        found += parser.feed(stream[start:stop])
    rest = parser.end()
    found += [] if rest is None else [rest]
    told = [(frame.data, frame.event, frame.has_id) for frame in found if frame.data is not None]
    return told, b"".join(frame.raw for frame in found)


@given(
    lines=st.lists(st.tuples(LINES, ENDS), max_size=30),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=40),
)
def test_any_chunking_gives_the_same_frames_and_loses_no_byte(
    lines: list[tuple[bytes, bytes]], bom: bool, cuts: list[int]
) -> None:
    """However the network cuts the stream, the events are the same, and their bytes together are the stream."""
    stream = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + end for line, end in lines)
    whole = _fields(stream, [])
    assert _fields(stream, cuts) == whole
    assert _fields(stream, list(range(len(stream)))) == whole
    assert whole[1] == stream


def _one(stream: bytes) -> bytes | None:
    [frame] = Frames(1000).feed(stream)
    return frame.data


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_lines_of_an_events_data_are_joined(end: bytes) -> None:
    """As the HTML standard has it: line feeds between the lines of data, one leading space dropped."""
    assert _one(end.join([b"event: message", b"data: {", b'data:  "a": 1', b"data:}", b"", b""])) == b'{\n "a": 1\n}'


def test_a_comment_between_events_is_passed_on_at_once() -> None:
    """A keep-alive that waits for the next event keeps nothing alive."""
    [frame] = Frames(1000).feed(b": ping\n")
    assert (frame.raw, frame.data) == (b": ping\n", None)


def test_an_event_is_handed_out_as_soon_as_it_is_whole() -> None:
    """Also where lines end in a bare CR, of which nobody can know yet whether an LF follows."""
    parser = Frames(1000)
    assert [frame.data for frame in parser.feed(b"data: 1\r\r")] == [b"1"]
    assert [frame.data for frame in parser.feed(b"\ndata: 2\n\n")] == [b"2"]


def test_an_event_without_an_end_is_cut_off() -> None:
    """The cap holds for one event, not for the stream."""
    parser = Frames(100)
    for _ in range(10):
        assert len(parser.feed(b"data: " + b"x" * 80 + b"\n\n")) == 1
    with pytest.raises(FrameTooLarge):
        parser.feed(b"data: " + b"x" * 101)


@given(data=st.sampled_from([b"{}", b'{\n"a": 1\n}', b"{}\n"]), end=ENDS)
def test_an_events_data_can_be_replaced_and_the_rest_stays(data: bytes, end: bytes) -> None:
    """Name, id, retry and comments as they came; the new data reads back as it was given."""
    [old] = Frames(1000).feed(
        end.join([b"id: 7", b"data: a", b"data: b", b": note", b"event: e", b"retry: 5", b"", b""])
    )
    [new] = Frames(1000).feed(old.with_data(data))
    assert (new.data, new.event, new.has_id) == (data, b"e", True)
    assert b": note\n" in new.raw
    assert b"retry: 5\n" in new.raw


def test_our_own_events_hold_one_message() -> None:
    """Line ends inside of a message's JSON do not end the event."""
    [frame] = Frames(1000).feed(event(b'{"a":\r\n1}'))
    assert frame.data == b'{"a": \n1}'
