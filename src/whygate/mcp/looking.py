"""What an MCP server says of its tools, asked by the gateway itself, with no client behind it.

A stdio server gets a process of its own for it, which ends afterwards: a program that was replaced on disk shows what it is
now, and no agent's process hears a message that is not the agent's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from whygate.core import definitions
from whygate.core.definitions import Unreadable
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.reasons import Code
from whygate.mcp.backend import Backend, HttpBackend, Refused, Server
from whygate.mcp.conversation import Client, Conversation
from whygate.mcp.stdio import StdioBackend
from whygate.transport.upstream import UpstreamError, Upstreams

LOOK_S: Final = 60.0
"""For a whole look: the slowest of the usual programs need some seconds to start."""
_ABLE: Final = msgspec.Raw(b'{"elicitation":{"form":{},"url":{}},"roots":{},"sampling":{}}')
"""Some servers list a tool only for a client that can be asked what the tool asks: whoever looks sees all of them. What a
server does ask meanwhile is declined."""
ABLE: Final = Client(capabilities=_ABLE)
OLDER: Final = Client(capabilities=_ABLE, modern=False)
OURSELVES: Final = Principal(id="whygate", type=IdentityType.SERVICE_ACCOUNT, proof=Proof.NONE)


async def listed(server: Server) -> list[bytes]:
    """All definitions, in the server's own era. Raises ``UpstreamError``."""
    tools, _ = await _asked(server, ABLE)
    return tools


async def whole(server: Server) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """All tools with what the server says of them in both eras, by name; and those that can't be pinned, with why.

    A server that speaks both leaves out, for clients of the older, what these don't know. Raises ``UpstreamError``.
    """
    # At once: a program takes a second or two to start.
    own, older = await asyncio.gather(_asked(server, ABLE), _asked(server, OLDER), return_exceptions=True)
    if isinstance(own, BaseException):
        raise own
    tools, modern = own
    found, wrong = _read(tools)
    if modern and not isinstance(older, BaseException):  # where it is one: a server of the one era only
        others, _ = _read(older[0])
        for name, other in others.items():
            joined = definitions.joined(found[name], other) if name in found else other
            if joined is None:
                found.pop(name)
                wrong[name] = "the server says one thing of it to clients of 2026-07-28 and another to older ones"
            elif name not in wrong:
                found[name] = joined
    return found, wrong


def _read(tools: list[bytes]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    found: dict[str, dict[str, Any]] = {}
    wrong: dict[str, str] = {}
    for number, data in enumerate(tools):
        try:
            definition = definitions.read(data)
        except Unreadable as why:
            wrong[f"(the {number + 1}. of its list)"] = str(why)
            continue
        name = str(definition["name"])
        if name in found:
            wrong[name] = "the server lists it twice"
        found[name] = definition
    return {name: each for name, each in found.items() if name not in wrong}, wrong


async def _asked(server: Server, client: Client) -> tuple[list[bytes], bool]:
    """The list, and whether the server is of the modern era."""
    try:
        async with asyncio.timeout(LOOK_S), _backend(server) as backend:
            conversation = Conversation(server, backend, OURSELVES, client=client)
            try:
                listing = await conversation.list_tools()
            finally:
                await conversation.close()
            return listing.tools, conversation.modern
    except TimeoutError:
        raise UpstreamError(Code.UPSTREAM_TIMEOUT, f"it gave no list within {LOOK_S:.0f} s") from None
    except Refused as refused:
        raise UpstreamError(Code.UPSTREAM_FAILED, refused.note) from None


@asynccontextmanager
async def _backend(server: Server) -> AsyncIterator[Backend]:
    if server.url:
        upstreams = Upstreams(read_timeout_s=LOOK_S)
        try:
            yield HttpBackend(server, upstreams)
        finally:
            await upstreams.close()
        return
    backend = StdioBackend(server)
    try:
        yield backend
    finally:
        await backend.close()
