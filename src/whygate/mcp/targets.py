"""What a request asks for, as ``decide`` wants to know it: a tool, a resource, a prompt, a handle, or nothing by name.

Rules of this file:

1. One target, one decision. A request that names several is decided once for each, and passes only if all may.
2. Names that the server itself listed are known; of others a span says nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from whygate.core.calls import Fault, Tool
from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.core.things import MAX_NAME, MAX_URI, PROMPT, RESOURCE, doubt_about_name, doubt_about_uri
from whygate.mcp import handles
from whygate.mcp.envelope import INVALID_PARAMS, Envelope, Wrong
from whygate.mcp.handles import Handles
from whygate.mcp.methods import MAX_LISTENED, REQUESTS, How

MAX_KNOWN: Final = 2_000
"""Names remembered of one server and kind, as the catalogue does with tools."""
_NOTHING: Final[dict[str, Any]] = {}
_encode: Final = msgspec.json.Encoder().encode
_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Target(NamedTuple):
    """One thing that is asked for."""

    tool: Tool | None = None
    args: dict[str, Any] = _NOTHING
    public: bool = False
    """Only the gates apply."""
    fault: Fault | None = None
    asked: str = ""


OPEN: Final = Target(public=True)


class Targets:
    """What the servers' answers have taught about their resources, prompts and tasks. Owned by the event loop."""

    def __init__(self, digest: Callable[[bytes], str]) -> None:
        self._digest = digest
        self._known: dict[tuple[str, str], set[str]] = {}
        self.handles = Handles()

    def learn(self, server: str, kind: str, names: Iterable[str]) -> None:
        """Remember resources or prompts that the server itself listed."""
        known = self._known.setdefault((server, kind), set())
        most = MAX_URI if kind == RESOURCE else MAX_NAME
        known.update(name for name in names if len(known) < MAX_KNOWN and len(name) <= most)

    def thing(self, server: str, kind: str, name: str) -> Tool:
        """A resource or a prompt."""
        return Tool(server=server, name=name, type=kind, known=name in self._known.get((server, kind), ()))

    def open_state(self, server: str, principal: Principal, envelope: Envelope) -> Wrong | None:
        """Put the upstream's own ``requestState`` in the place of the sealed one; what is wrong where it is not this
        caller's, or not of this call. Bytes of all else stay as they came.
        """
        bound = handles.bound_to(server, principal, envelope)
        state = handles.unseal(envelope.params["requestState"], self._digest, bound)
        if state is None:
            note = "the requestState was not given out for this call of this caller, or was changed"
            return Wrong(Code.HANDLE_NOT_USABLE, note, rpc=INVALID_PARAMS)
        params: dict[str, Any] = dict(_PARTS.decode(envelope.parts["params"]))
        params["requestState"] = state
        envelope.parts["params"] = msgspec.Raw(_encode(params))
        return None

    def seal_state(self, server: str, principal: Principal, envelope: Envelope, state: str) -> str:
        """The ``requestState`` that the caller gets instead of the upstream's own."""
        return handles.seal(state, self._digest, handles.bound_to(server, principal, envelope))

    def of(self, server: str, principal: Principal, envelope: Envelope) -> list[Target]:
        """What a request asks for, where its method is another than ``tools/call``; never nothing."""
        row, params = REQUESTS.get(envelope.method), envelope.params
        match row.how if row is not None else How.OPEN:
            case How.RESOURCE:
                return [self._resource(server, params["uri"])]
            case How.PROMPT:
                return [self._prompt(server, params["name"], params.get("arguments", _NOTHING))]
            case How.COMPLETION:
                return [self._completion(server, params)]
            case How.HANDLE:
                return [self._handle(server, principal, params["taskId"])]
            case How.LISTEN:
                return list(self._listened(server, principal, params["notifications"])) or [OPEN]
            case _:
                return [OPEN]

    def _resource(self, server: str, uri: str) -> Target:
        return Target(self.thing(server, RESOURCE, uri), {"uri": uri}, fault=doubt_about_uri(uri))

    def _prompt(self, server: str, name: str, args: dict[str, Any]) -> Target:
        if (fault := doubt_about_name(name)) is not None:
            return Target(None, args, fault=fault, asked=name[:MAX_NAME])
        return Target(self.thing(server, PROMPT, name), args)

    def _completion(self, server: str, params: dict[str, Any]) -> Target:
        """As the prompt or template that it is about, with what has been filled in so far."""
        ref, argument = params["ref"], params["argument"]
        so_far = dict(params.get("context", _NOTHING).get("arguments", _NOTHING))
        so_far[argument["name"]] = argument.get("value")
        if ref["type"] == "ref/prompt":
            return self._prompt(server, ref["name"], so_far)
        template = ref["uri"]
        return Target(
            self.thing(server, RESOURCE, template),
            {"uri": template, "arguments": so_far},
            fault=doubt_about_uri(template),
        )

    def _handle(self, server: str, principal: Principal, handle: str) -> Target:
        args = {"taskId": handle}
        if not self.handles.usable(server, handle, principal):
            note = "the task is not known here, or another's"
            return Target(None, args, public=True, fault=Fault(code=Code.HANDLE_NOT_USABLE, note=note))
        return Target(self.handles.tool(server, handle, principal), args, public=True)

    def _listened(self, server: str, principal: Principal, wanted: dict[str, Any]) -> Iterator[Target]:
        uris, tasks = wanted.get("resourceSubscriptions", ()), wanted.get("taskIds", ())
        if len(uris) + len(tasks) > MAX_LISTENED:
            note = f"more than {MAX_LISTENED} resources and tasks in one subscription"
            yield Target(public=True, fault=Fault(code=Code.ARGS_TOO_LARGE, note=note))
            return
        for uri in uris:
            yield self._resource(server, uri)
        for task in tasks:
            yield self._handle(server, principal, task)
