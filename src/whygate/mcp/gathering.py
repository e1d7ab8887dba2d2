"""One list of the tools of many servers: asked for all at once, cut down to what the caller may see, and accounted for.

Rules of this file:

1. A server that gives no whole list is left out; the completion and the log say which, and why. Where none gives a list, the
   answer is a failure: an empty list would be believed.
2. Nobody waits for one server longer than ``LIST_S``.
3. Each caller's list is filtered anew, whatever was kept of what the servers say.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

import msgspec

from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.core.records import ListedServer
from whygate.flow.ports import Completion, Gate
from whygate.mcp import lists, merging, splices
from whygate.mcp.backend import Catalogue, Refused
from whygate.mcp.envelope import Parts
from whygate.mcp.relay import Open
from whygate.mcp.results import judge, sight
from whygate.mcp.talks import Talk, Talks
from whygate.transport.asgi import JSON, Header
from whygate.transport.refusals import answer_headers
from whygate.transport.upstream import UpstreamError

LIST_S: Final = 20.0
"""For one server's whole list, its start included: the slowest of the usual ones need 2.4 s; nobody waits for longer than
this because one of many is ill."""
CAP_BYTES: Final = 16 * 1024 * 1024
"""For all servers' definitions together; whose do not fit any more are left out."""
_encode: Final = msgspec.json.Encoder().encode
_log = logging.getLogger("whygate.mcp")


class Gathering:
    """Owned by the event loop."""

    def __init__(self, gate: Gate, catalogue: Catalogue, talks: Talks, servers: Iterable[str]) -> None:
        self._gate = gate
        self._catalogue = catalogue
        self._talks = talks
        self._names = sorted(servers)
        self._left_out: dict[str, str] = {}

    async def answer(self, opened: Open, talk: Talk) -> tuple[list[Header], bytes]:
        """Headers and body of the answer to an admitted ``tools/list``, which is completed."""
        headers = [JSON, *answer_headers(opened.admission.answer)]
        parts, told = await self._gathered(opened, talk)
        self._tell_operators(told)
        missing = any(each.code for each in told)
        if missing and not parts:
            opened.finish(Completion(is_error=True, error="no_server", code=Code.UPSTREAM_FAILED, servers=tuple(told)))
            return headers, opened.fail(Code.UPSTREAM_FAILED)
        made = merging.merged(parts, modern=opened.envelope.modern, whole=not missing)
        raw = _encode(made)
        opened.finish(
            Completion(
                hidden=sum(each.hidden for each in told),
                result_bytes=len(raw),
                result_digest=self._gate.digest(raw),
                servers=tuple(told),
            )
        )
        data = _encode({"jsonrpc": "2.0", "id": opened.envelope.id})
        return headers, splices.downward(data, made, _encode(opened.admission.answer))

    async def _gathered(self, opened: Open, talk: Talk) -> tuple[list[merging.Listed], list[ListedServer]]:
        """What each server gave, and what the record says of it."""
        parent, principal = opened.admission.traceparent, opened.admission.call.principal
        found = await asyncio.gather(*(self._part(talk, name, parent) for name in self._names))
        parts: list[merging.Listed] = []
        told: list[ListedServer] = []
        left_bytes = CAP_BYTES
        for name, part in zip(self._names, found, strict=True):
            hidden, kept = 0, part
            if isinstance(kept, merging.Listed):
                left_bytes -= sum(len(bytes(tool)) for tool in kept.tools)
                kept, hidden = self._filtered(principal, kept) if left_bytes > 0 else (Code.RESULT_TOO_LARGE, 0)
            if isinstance(kept, merging.Listed):
                parts.append(kept)
                told.append(ListedServer(hidden=hidden, name=name, tools=len(kept.tools)))
            else:
                told.append(ListedServer(code=kept.value, name=name))
        return parts, told

    def _tell_operators(self, told: list[ListedServer]) -> None:
        """A line of the log when a server begins to be left out of lists, and when it is back: not one for each list."""
        for each in told:
            before = self._left_out.pop(each.name, "")
            if each.code:
                self._left_out[each.name] = each.code
            if before != each.code:
                what = f"left out of lists of tools: {each.code}" if each.code else "in lists of tools again"
                _log.warning("%s: %s", each.name, what)

    async def _part(self, talk: Talk, name: str, traceparent: str) -> merging.Listed | Code:
        """One server's list, or why there is none."""
        try:
            async with asyncio.timeout(LIST_S):
                found = await self._talks.listing(talk, name, traceparent)
        except UpstreamError as error:
            return error.code
        except Refused as refused:
            return refused.code
        except TimeoutError:
            return Code.UPSTREAM_TIMEOUT
        tools = [msgspec.Raw(tool) for tool in found.tools]
        return merging.Listed(server=name, tools=tools, ttl_ms=found.ttl_ms, kept=found.kept)

    def _filtered(self, principal: Principal, part: merging.Listed) -> tuple[merging.Listed | Code, int]:
        """The part with the tools that the caller may see, and how many were left out."""
        result: Parts = {"tools": msgspec.Raw(_encode(part.tools))}
        visible = sight(self._gate, principal, part.server)
        shown = lists.filtered(result, visible, judge(self._catalogue, part.server, late=part.kept), modern=False)
        if shown is None:
            return Code.UPSTREAM_FAILED, 0
        return msgspec.structs.replace(part, tools=shown[0]["tools"], ttl_ms=min(part.ttl_ms, lists.TTL_MS)), shown[1]
