"""HTTP/1.1 by hand, for what no client would send."""

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit

WAIT_S = 3.0
"""For the server's end of the connection; a server that keeps it open has answered by then."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def exchange(url: str, *sent: bytes, wait_s: float = WAIT_S) -> list[Answer]:
    """Send the bytes, one write for each part, and return the answers until the server closes, or says no more."""
    split = urlsplit(url)
    assert split.hostname is not None
    reader, writer = await asyncio.open_connection(split.hostname, split.port)
    got = b""
    try:
        for part in sent:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(wait_s):
            while piece := await reader.read(65536):
                got += piece
    except (TimeoutError, ConnectionError):
        pass  # what came until then is the answer
    finally:
        writer.close()
    return answers(got)


def answers(data: bytes) -> list[Answer]:
    """The responses in ``data``, one after the other; those that say 100 left out."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if status == 100:
            continue
        if headers.get("transfer-encoding") == "chunked":
            body, data = _chunked(data)
        else:
            size = int(headers.get("content-length", len(data)))
            body, data = data[:size], data[size:]
        found.append(Answer(status, headers, body))
    return found


def _chunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            break
    return body, data
