"""Plain HTTP tools at ``/http/{tool}/…``.

Rules of this file:

1. Whatever is wrong with a request becomes a fault, and ``gate.admit`` refuses it: one record for each refusal.
2. The bytes that were evaluated are the bytes that are forwarded: path, query and body are never rebuilt.
3. A body that can't be read can't be decided on, and is refused: unknown content types, encoded bodies.
4. Every allowed call is completed exactly once, whatever happens to the client or the upstream.
5. Anything unforeseen before a decision is a recorded refusal: it never opens a door.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whygate.core.calls import Fault, Tool, ToolCall
from whygate.core.identity import ANONYMOUS, Principal
from whygate.core.reasons import Code
from whygate.core.strict_json import Unreadable, loads
from whygate.flow.ports import Admission, Answer, Completion, Gate, Identifier
from whygate.http.asking import asked_again, narrowed
from whygate.http.redirects import through_the_gateway
from whygate.http.routes import Route, Router, merge, query_of
from whygate.http.signature import Signature
from whygate.transport.asgi import BodyTooLarge, BodyTooSlow, ClientGone, Exchange, Header
from whygate.transport.aside import aside
from whygate.transport.callers import identify
from whygate.transport.framing import UNREADABLE
from whygate.transport.headers import downward, upward
from whygate.transport.hints import from_headers
from whygate.transport.origin import Origins
from whygate.transport.readings import second_reading
from whygate.transport.refusals import NOT_SENT, answer_headers, problem, refusal_headers, status_of
from whygate.transport.upstream import UpstreamError, UpstreamResponse, Upstreams

BODY_CAP_BYTES: Final = 4 * 1024 * 1024
_CREDENTIAL: Final = frozenset((401, 407))
_UNCHANGED: Final = Completion(is_error=True, error="not_forwarded", code=Code.UPSTREAM_FAILED)
_PROBLEM: Final = (b"content-type", b"application/problem+json")
_CUT_OFF: Final = Fault(code=Code.REQUEST_MALFORMED, note="a number sign in the query: whoever sends it on ends there")
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
_ALLOW: Final = (b"allow", ", ".join(sorted(_METHODS)).encode())
"""RFC 9110 section 15.5.6: on every 405."""

_log = logging.getLogger("whygate.http")


class HttpTool(msgspec.Struct, frozen=True, kw_only=True):
    """A plain HTTP tool as wired: where it is, what it can do, what credential it gets."""

    name: str
    url: str
    """Base URL without a trailing slash."""
    router: Router
    tools: Mapping[str, Tool]
    """Operation name to tool."""
    headers: tuple[tuple[str, str], ...] = ()
    """The upstream's credential, resolved."""
    signatures: Mapping[str, Signature] = {}
    """Operation name to what it takes, for those that a document declares."""


class HttpEdge:
    """Routes agents' requests to plain HTTP tools."""

    def __init__(
        self,
        tools: Mapping[str, HttpTool],
        identifier: Identifier,
        gate: Gate,
        origins: Origins,
        resource_metadata: str,
    ) -> None:
        self._tools = dict(tools)
        self._identifier = identifier
        self._gate = gate
        self._origins = origins
        self._resource_metadata = resource_metadata
        self._upstreams = Upstreams()

    async def close(self) -> None:
        await self._upstreams.close()

    async def __call__(self, tool_name: str, rest: bytes, exchange: Exchange) -> None:
        """Handle one request. ``rest`` is the path after the tool's name, as on the wire, starting with ``/``."""
        if (status := exchange.scope.get(UNREADABLE)) is not None:
            await self._unreadable(exchange, status)
            return
        tool = self._tools.get(tool_name)
        try:
            asked = await self._ask(tool, rest, exchange)
        except ClientGone:
            return
        except Exception:  # noqa: BLE001  # rule 5: nothing of it reaches the caller
            _log.exception("a request could not be read in an unforeseen way")
            asked = await self._gate.admit(_unread(exchange)), b""
        admission, body = asked
        if admission.approval is not None:
            try:
                admission = await asked_again(self._gate, exchange, admission)
            except ClientGone:
                return
        if admission.before is not None:
            changed = narrowed(body, admission, _media(exchange))
            if changed is None:  # what was changed is in the path, or in a form: nothing that can be put in its place
                self._gate.complete(admission, _UNCHANGED)
                admission = await self._gate.admit(_unread(exchange))
            body = changed or b""
        if not admission.allowed or tool is None:
            await self._refuse(exchange, admission.answer)
            return
        await self._forward(exchange, tool, rest, body, admission)

    async def _unreadable(self, exchange: Exchange, status: int) -> None:
        """A request whose framing can't be read: nothing of it is believed, whoever sent it."""
        code = Code.REQUEST_TOO_LARGE if status == 431 else Code.REQUEST_MALFORMED
        fault = Fault(code=code, note=f"not HTTP that can be read in one way only ({status})")
        call = ToolCall(protocol="http", method="_other", client=exchange.client, faults=(fault,))
        await self._refuse(exchange, (await self._gate.admit(call)).answer)

    async def _ask(self, tool: HttpTool | None, rest: bytes, exchange: Exchange) -> tuple[Admission, bytes]:
        """The decision about the request, and its body. Raises ``ClientGone``."""
        principal, fault = await self._identify(exchange)
        faults = [fault] if fault is not None else []
        # Of somebody who is nobody to us, nothing is read but the headers.
        body = b"" if fault is not None else await self._read(exchange, faults)
        if fault is not None:
            await exchange.discard()
        faults += self._doubts(exchange)
        call = await aside(len(body), _call, exchange, tool, rest, body, (principal, faults))
        return await self._gate.admit(call), body

    def _doubts(self, exchange: Exchange) -> list[Fault]:
        found = [fault for fault in (self._origins.check(exchange), second_reading(exchange)) if fault is not None]
        return [*found, _CUT_OFF] if b"#" in exchange.query else found

    async def _read(self, exchange: Exchange, faults: list[Fault]) -> bytes:
        try:
            return await exchange.body(BODY_CAP_BYTES)
        except BodyTooLarge:
            faults.append(Fault(code=Code.REQUEST_TOO_LARGE, note=f"the cap is {BODY_CAP_BYTES} bytes"))
        except BodyTooSlow:
            faults.append(Fault(code=Code.REQUEST_MALFORMED, note="the body did not come in time"))
        return b""

    async def _identify(self, exchange: Exchange) -> tuple[Principal, Fault | None]:
        found = await identify(self._identifier, exchange.values(b"authorization"))
        return (ANONYMOUS, found) if isinstance(found, Fault) else (found, None)

    async def _refuse(self, exchange: Exchange, answer: Answer) -> None:
        headers = [_PROBLEM, *refusal_headers(answer, self._resource_metadata)]
        if answer.code is Code.REQUEST_METHOD_UNKNOWN:
            headers.append(_ALLOW)
        await exchange.respond(status_of(answer.code), headers, problem(answer))

    async def _forward(
        self, exchange: Exchange, tool: HttpTool, rest: bytes, body: bytes, admission: Admission
    ) -> None:
        url = tool.url + rest.decode("ascii")
        if exchange.query:
            url += "?" + exchange.query.decode("ascii")
        headers = upward(exchange.headers, (*tool.headers, ("traceparent", admission.traceparent)))
        done = Completion(code=Code.OUTCOME_UNKNOWN, error="stopped", is_error=True)
        try:
            async with self._upstreams.send(exchange.method, url, headers, body) as response:
                done = await self._relay(exchange, response, admission, _location(tool, url, response))
        except UpstreamError as failed:
            error = failed.code.value if failed.sent else "not_sent"
            done = Completion(
                code=failed.code, status=failed.status, error=error, is_error=True, result_bytes=failed.received_bytes
            )
            await self._tell_failure(exchange, admission, failed)
        except asyncio.CancelledError:
            if not exchange.started:
                await self._tell_failure(exchange, admission, UpstreamError(Code.OUTCOME_UNKNOWN, "stopped"))
            raise
        except Exception:  # noqa: BLE001  # whatever it is, the caller gets a bare answer and the call its completion
            _log.exception("forwarding failed in an unforeseen way")
            await self._tell_failure(exchange, admission, UpstreamError(Code.UPSTREAM_FAILED, "internal"))
        finally:
            self._gate.complete(admission, done)

    async def _relay(
        self, exchange: Exchange, response: UpstreamResponse, admission: Admission, location: list[Header]
    ) -> Completion:
        """Pass the upstream's answer on as it comes. A client that leaves ends the upstream's answer, too."""
        if response.status in _CREDENTIAL:
            # About our credential, which may be quoted in it; the agent would take it for its own.
            _log.warning("%s: did not take the gateway's credential (%d)", admission.call.server, response.status)
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool did not take the gateway's credential")
        headers = [*downward(response.headers), *location, *answer_headers(admission.answer)]
        await exchange.start(response.status, headers)
        seen = self._gate.hasher()
        size = 0
        gone = asyncio.ensure_future(exchange.gone())
        error = str(response.status) if response.status >= 400 else ""
        try:
            async for chunk in response.chunks():
                size += len(chunk)
                seen.update(chunk)
                await exchange.send(chunk)
                if gone.done():
                    error = "client_gone"
                    break
        except UpstreamError as failed:
            failed.status, failed.received_bytes = response.status, size
            raise
        finally:
            gone.cancel()
        await exchange.end()
        return Completion(
            status=response.status, is_error=bool(error), error=error, result_bytes=size, result_digest=seen.text()
        )

    async def _tell_failure(self, exchange: Exchange, admission: Admission, failed: UpstreamError) -> None:
        """The tool failed: say so in its place, or break the answer off where it had begun."""
        if exchange.started:
            raise failed
        entry = failed.code.entry
        note = entry.user if failed.sent else NOT_SENT
        answer = msgspec.structs.replace(admission.answer, note=note, next=entry.next)
        headers = [_PROBLEM, *answer_headers(answer)]
        await exchange.respond(status_of(failed.code), headers, problem(answer, became=failed.code))


def _call(
    exchange: Exchange, tool: HttpTool | None, rest: bytes, body: bytes, found: tuple[Principal, list[Fault]]
) -> ToolCall:
    principal, faults = found
    matched: tuple[Route, dict[str, str]] | None = None
    args: dict[str, Any] = {}
    if tool is None:
        faults.append(Fault(code=Code.REQUEST_SERVER_UNKNOWN, note="no HTTP tool of this name"))
    elif exchange.method not in _METHODS:
        faults.append(Fault(code=Code.REQUEST_METHOD_UNKNOWN, note="not a method that tools are called by"))
    else:
        try:
            matched = tool.router.match(exchange.method, rest)
            if matched is not None and principal.authenticated:
                signature = tool.signatures.get(matched[0].name)
                if signature is None:
                    args = _arguments(exchange, matched[1], body)
                else:
                    args = signature.read(matched[1], exchange.query, body, _media(exchange))
        except Unreadable as unreadable:
            faults.append(Fault(code=unreadable.code, note=unreadable.note))
    route = matched[0] if matched is not None else None
    return ToolCall(
        protocol="http",
        method=exchange.method if exchange.method in _METHODS else "_other",
        server=tool.name if tool is not None else "",
        tool=tool.tools.get(route.name) if tool is not None and route is not None else None,
        asked="" if route is not None else "no operation of this path",
        args=args,
        principal=principal,
        client=exchange.client,
        faults=tuple(faults),
        hints=from_headers(exchange),
    )


def _location(tool: HttpTool, asked: str, response: UpstreamResponse) -> list[Header]:
    """The ``location`` of an answer, as the agent gets it."""
    found = [value for name, value in response.raw_headers if name == b"location"]
    passed = through_the_gateway(tool.name, tool.url, asked, found[0].decode("latin-1")) if len(found) == 1 else None
    return [] if passed is None else [(b"location", passed.encode("ascii"))]


def _unread(exchange: Exchange) -> ToolCall:
    """What is asked where nothing of it could be read: refused, whoever it was."""
    fault = Fault(code=Code.INTERNAL_ERROR)
    method = exchange.method if exchange.method in _METHODS else "_other"
    return ToolCall(protocol="http", method=method, public=True, client=exchange.client, faults=(fault,))


def _media(exchange: Exchange) -> str:
    return (exchange.header(b"content-type") or "").partition(";")[0].strip().lower()


def _arguments(exchange: Exchange, path: dict[str, str], body: bytes) -> dict[str, Any]:
    """Path parameters, query fields and the body's members as one map. A name that comes from two places is refused.

    Raises ``Unreadable``.
    """
    args: dict[str, Any] = dict(path)
    merge(args, query_of(exchange.query))
    if not body:
        return args
    media = _media(exchange)
    if media == "application/x-www-form-urlencoded":
        merge(args, query_of(body))
    elif media == "application/json" or media.endswith("+json"):
        value = loads(body, forwarded=True)
        merge(args, value if isinstance(value, dict) else {"body": value})
    else:
        raise Unreadable(Code.REQUEST_MALFORMED, "only JSON and form bodies can be decided on")
    return args
