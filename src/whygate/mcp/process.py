"""One child process that speaks newline-delimited JSON-RPC (MCP, basic/transports, "stdio").

Rules of this file:

1. The command comes from the operator's config alone, and the child sees only the variables named here and there.
2. What it writes to stderr is for the log, and bounded: a chatty child must not fill the disk.
3. It is asked to leave (stdin closes), then told, then made to.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Final

from whygate.core.reasons import Code
from whygate.mcp.backend import Server
from whygate.transport.upstream import UpstreamError

LINE_CAP_BYTES: Final = 16 * 1024 * 1024
"""As large as an answer over HTTP may be."""
STOP_S: Final = 2.0
"""For each step of the goodbye; servers that flush to a local disk need milliseconds."""
WRITE_S: Final = 30.0
"""A server that has not taken a message by then has stopped reading; its callers must not wait for ever."""
UNREAD_BYTES: Final = 16 * 1024 * 1024
"""What may lie before a server that does not read, of all its callers' messages together."""
_STDERR_LINES: Final = 1000
_STDERR_CHARS: Final = 500
_INHERITED: Final = (
    *("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATHEXT", "PROGRAMFILES", "SYSTEMDRIVE"),
    *("SYSTEMROOT", "TEMP", "TMP", "USERNAME", "USERPROFILE"),
)
"""What programs need to run at all. Credentials live in other variables, so nothing else is inherited."""

_log = logging.getLogger("whygate.mcp.stdio")


class Process:
    """A running child. ``on_line`` gets each line it writes, ``on_end`` is called once when it is gone."""

    def __init__(self, server: Server, on_line: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._server = server
        self._on_line = on_line
        self._on_end = on_end
        self._child: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Raises ``UpstreamError`` where the command can't be run."""
        try:
            self._child = await asyncio.create_subprocess_exec(
                *self._server.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._server.cwd or None,
                env=environment(self._server),
                limit=LINE_CAP_BYTES,
                start_new_session=True,  # so that a launcher's own children can be told to leave with it
            )
        except OSError as error:
            _log.error("%s: its command can't be run: %s", self._server.name, error.strerror)
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool's process can't be started", sent=False) from error
        self._tasks = [
            asyncio.create_task(self._read(self._child, self._child.stdout)),
            asyncio.create_task(self._drain(self._child.stderr)),
        ]

    async def write(self, message: bytes) -> None:
        """Write one message. Raises ``UpstreamError`` where the child is gone, or does not read."""
        child = self._child
        if child is None or child.stdin is None or child.stdin.is_closing():
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool's process is gone", sent=False)
        if child.stdin.transport.get_write_buffer_size() > UNREAD_BYTES:
            raise UpstreamError(Code.UPSTREAM_TIMEOUT, "the tool's process does not read", sent=False)
        try:
            # One write per message, so that two callers' messages can't interleave.
            child.stdin.write(one_line(message) + b"\n")
            async with asyncio.timeout(WRITE_S):
                await child.stdin.drain()
        except TimeoutError as error:
            raise UpstreamError(Code.UPSTREAM_TIMEOUT, "the tool's process does not read") from error
        except (ConnectionError, RuntimeError) as error:
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool's process is gone") from error

    async def stop(self) -> None:
        """Return when the child is gone."""
        child = self._child
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        for step in (None, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            if step is not None:
                _tell(child, step)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), STOP_S)
                break
        # A grandchild may keep the pipes open; nobody listens any more, and they are not kept for it.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # There is no other way to its pipes.
        child._transport.close()  # type: ignore[attr-defined]  # types leave it out  # noqa: SLF001  # see above

    async def _read(self, child: asyncio.subprocess.Process, stdout: asyncio.StreamReader | None) -> None:
        try:
            while stdout is not None and (line := await stdout.readline()):
                if stripped := line.strip():
                    self._on_line(stripped)
        except ValueError:
            _log.error("%s: wrote a line of more than %d bytes and is stopped", self._server.name, LINE_CAP_BYTES)
            _tell(child, signal.SIGTERM)
        except Exception:  # noqa: BLE001  # a message that we choke on must not leave callers waiting
            _log.exception("%s: a message could not be handled", self._server.name)
            _tell(child, signal.SIGTERM)
        finally:
            self._on_end()

    async def _drain(self, stderr: asyncio.StreamReader | None) -> None:
        left = _STDERR_LINES
        while stderr is not None and (chunk := await stderr.read(4096)):
            for line in chunk.decode("utf-8", "replace").splitlines():
                left -= 1
                if left > 0:
                    _log.info("%s: %s", self._server.name, ascii(line[:_STDERR_CHARS])[1:-1])
                elif left == 0:
                    _log.info("%s: (says more, which is not logged)", self._server.name)


def environment(server: Server) -> dict[str, str]:
    """The child's variables: what programs need to run, and what the operator configured."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # Exported shell functions are code that the child's shell would run.
    return {name: value for name, value in kept.items() if not value.startswith("()")} | dict(server.env)


def one_line(message: bytes) -> bytes:
    """The message without raw line ends, which would end it early. In JSON they can stand between tokens only (strings
    hold them escaped: RFC 8259 section 7), so nothing that was evaluated changes.
    """
    if b"\n" in message or b"\r" in message:
        return message.replace(b"\n", b" ").replace(b"\r", b" ")
    return message


def _tell(child: asyncio.subprocess.Process, what: signal.Signals) -> None:
    if child.returncode is not None:
        return  # its number may be somebody else's by now
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, what)
        else:
            child.send_signal(what)
