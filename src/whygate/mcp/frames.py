"""Server-sent events, taken apart without losing a byte (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Rules of this file:

1. Pure: bytes in, frames out. However the bytes are cut into chunks, the frames are the same.
2. The ``raw`` bytes of all frames, one after the other, are the stream: who passes them on passes it on untouched.
3. A comment between events is a frame of its own, so that a keep-alive is never held back until the next event.
"""

import re
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A


class FrameTooLarge(Exception):
    """One event is above the cap. What came before it was returned already."""


class Frame:
    """One event or comment."""

    __slots__ = ("data", "event", "has_id", "raw")

    def __init__(self, raw: bytes, data: bytes | None, event: bytes, *, has_id: bool) -> None:
        self.raw = raw
        """Its bytes, line ends included."""
        self.data = data
        """The ``data`` lines joined by line feeds; ``None`` where there was none."""
        self.event = event
        """Empty where the event has no name (then it is a ``message``)."""
        self.has_id = has_id
        """It carried an event id: the stream can be taken up again after it."""

    def with_data(self, data: bytes) -> bytes:
        """This event's bytes with other data; its name, id, retry and comments as they were."""
        lines = _LINE_END.split(self.raw)
        lines[0] = lines[0].removeprefix(_BOM)
        kept = [line for line in lines if line and line.partition(b":")[0] != b"data"]
        return b"\n".join([*kept, b"data: " + data.replace(b"\n", b"\ndata: "), b"", b""])


class Frames:
    """An incremental parser of one stream."""

    __slots__ = ("_after_cr", "_buffer", "_cap", "_data", "_event", "_fields", "_first", "_has_id", "_line", "_scan")

    def __init__(self, cap_bytes: int) -> None:
        self._cap = cap_bytes
        self._buffer = bytearray()
        self._line = 0
        """Where the line being read begins, in the buffer."""
        self._scan = 0
        """Up to where no further line end can be."""
        self._after_cr = False
        """The last line ended with a CR at the end of a chunk: an LF that follows belongs to it."""
        self._first = True
        self._fresh()

    def _fresh(self) -> None:
        self._data: list[bytes] = []
        self._event = b""
        self._has_id = False
        self._fields = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that ``chunk`` completes. Raises ``FrameTooLarge`` where one does not end within the cap."""
        found: list[Frame] = []
        if not chunk:
            return found
        buffer = self._buffer
        buffer += chunk
        if self._after_cr:
            self._after_cr = False
            if buffer[self._scan] == _LF:
                self._scan += 1
                self._line = self._scan
        start, line, scan = 0, self._line, self._scan
        while (match := _LINE_END.search(buffer, scan)) is not None:
            end, scan = match.span()
            if end == line or self._take(bytes(buffer[line:end])):
                found.append(self._frame(bytes(buffer[start:scan])))
                start = scan
            line = scan
            # A lone CR at the very end may be the first half of a CRLF.
            self._after_cr = scan == len(buffer) and buffer[end] != _LF and scan - end == 1
        del buffer[:start]
        self._line, self._scan = line - start, len(buffer)
        if len(buffer) > self._cap:
            raise FrameTooLarge
        return found

    def end(self) -> Frame | None:
        """What was begun and not ended when the stream closed. A strict client drops it; a lenient one acts on it, so
        it has to be looked at like any other.
        """
        if not self._buffer:
            return None
        if self._line < len(self._buffer):
            self._take(bytes(self._buffer[self._line :]))
        raw = bytes(self._buffer)
        self._buffer.clear()
        self._line = self._scan = 0
        return self._frame(raw)

    def _take(self, line: bytes) -> bool:
        """Read one line. Returns whether it is a comment that stands alone, and so a frame by itself."""
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if line.startswith(b":"):
            return self._fields == 0
        self._fields += 1
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            self._has_id = True
        return False

    def _frame(self, raw: bytes) -> Frame:
        data = self._data
        joined = None if not data else data[0] if len(data) == 1 else b"\n".join(data)
        frame = Frame(raw, joined, self._event, has_id=self._has_id)
        self._fresh()
        return frame


def event(data: bytes) -> bytes:
    """An event that carries one JSON-RPC message, as MCP servers send them."""
    return b"event: message\ndata: " + data.replace(b"\r", b" ").replace(b"\n", b"\ndata: ") + b"\n\n"
