"""Calls to upstream tools over HTTP.

pyreqwest, because it is many times quicker than httpx (docs/dependencies.md); behind this one file.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ConnectTimeoutError, PoolTimeoutError, PyreqwestError, RequestTimeoutError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from whygate.core.reasons import Code

CONNECT_TIMEOUT_S: Final = 5.0
"""A tool on the same network answers a SYN in milliseconds; five seconds leave room for one that is just starting."""
READ_TIMEOUT_S: Final = 120.0
"""Between two reads, never in total: event streams stay open for hours."""


class UpstreamError(Exception):
    """The upstream could not be reached, did not answer in time, or broke off. ``code`` is a completion code."""

    def __init__(self, code: Code, note: str, *, sent: bool = True) -> None:
        super().__init__(note)
        self.code = code
        self.note = note
        self.sent = sent
        """Whether bytes of the request may have reached the upstream."""


class UpstreamResponse:
    """An answer whose body has not been read yet."""

    __slots__ = ("_response", "headers", "status", "whole")

    def __init__(self, response: Response) -> None:
        """Raises ``ValueError`` where the head is none that could be passed on."""
        self._response = response
        self.whole = False
        """Whether the body has been read to its end."""
        self.status: int = response.status
        """Never below 200: what switches protocols is no answer."""
        if self.status < 200:
            raise ValueError("the upstream switched protocols")
        self.headers: list[tuple[str, str]] = list(response.headers.items())

    @property
    def media_type(self) -> str:
        """``type/subtype`` in lower case, without parameters; empty where there is no content type."""
        value = self._response.get_header("content-type") or ""
        return value.partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ``UpstreamError`` where the upstream breaks off."""
        reader = self._response.body_reader
        while True:
            with _TRANSLATED:
                chunk = await reader.read_chunk()
            if chunk is None:
                self.whole = True
                return
            if chunk:
                yield bytes(chunk)

    async def read(self, cap_bytes: int) -> bytes:
        """The whole body. Raises ``UpstreamError`` with ``result.too_large`` above the cap."""
        length = self._response.get_header("content-length")
        if length is not None and length.isdigit() and int(length) <= cap_bytes:
            # The HTTP client holds the upstream to the length it told.
            with _TRANSLATED:
                body = bytes(await self._response.bytes())
            self.whole = True
            return body
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > cap_bytes:
                raise UpstreamError(Code.RESULT_TOO_LARGE, f"the answer is above {cap_bytes} bytes")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Upstreams:
    """One pool of connections to all HTTP upstreams."""

    def __init__(self, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self._client: Client = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT_S))
            .read_timeout(timedelta(seconds=read_timeout_s))
            .follow_redirects(False)
            .referer(False)
            .no_proxy()
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .default_cookie_store(False)
            .build()
        )

    def send(self, method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> "Sending":
        """A request to be sent by ``async with``; leaving the block closes the upstream's response, read to its end or not.

        Entering raises ``UpstreamError``. Redirects are not followed: a 3xx is an answer like any other.
        """
        # A read buffer of 0: with any other, an event stream is held back until the buffer is full (pyreqwest 0.15.1).
        request = self._client.request(method, url).headers(list(headers)).streamed_read_buffer_limit(0)
        if body:
            request = request.body_bytes(body)
        return Sending(request.build_streamed())

    async def close(self) -> None:
        await self._client.close()


class Sending:
    """A request that is being sent. A class, because a generator would cost each call some microseconds more."""

    __slots__ = ("_answer", "_stream")

    def __init__(self, stream: StreamRequest) -> None:
        self._stream = stream
        self._answer: UpstreamResponse | None = None

    async def __aenter__(self) -> UpstreamResponse:
        with _TRANSLATED:
            response = await self._stream.__aenter__()
        try:
            self._answer = UpstreamResponse(response)
        except ValueError:
            # Entering failed, so nobody will leave: the connection is closed here.
            await asyncio.shield(self._stream.__aexit__(None, None, None))
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool's answer has a head that can't be read") from None
        return self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = self._stream.__aexit__(None, None, None)
        with _TRANSLATED:
            if self._answer is not None and self._answer.whole:
                await closing
            else:
                # A caller that is cancelled must still close the connection, or the tool would go on for nobody.
                await asyncio.shield(closing)


class _translated:  # noqa: N801  # used as a keyword would be
    """Turn the client's errors into ours. A class: three times cheaper than a generator context manager."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ConnectTimeoutError | PoolTimeoutError):
            raise UpstreamError(Code.UPSTREAM_TIMEOUT, "no connection to the tool in time", sent=False) from error
        if isinstance(error, RequestTimeoutError):
            raise UpstreamError(Code.UPSTREAM_TIMEOUT, "the tool did not answer in time") from error
        if isinstance(error, PyreqwestError):
            raise UpstreamError(
                Code.UPSTREAM_FAILED, f"the tool could not be reached ({type(error).__name__})"
            ) from error


_TRANSLATED: Final = _translated()
"""It holds nothing, so one serves all."""
