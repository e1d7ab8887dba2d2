"""A tool server as cheap as can be: ``tools/call`` answers with the call's own text. For load and upstream to fit one core."""

import secrets
import sys
from typing import Any

import msgspec
from benchmarks.gateway_files import DEFINITION
from benchmarks.wire import Message, ServerProtocol, response, serve


class Arguments(msgspec.Struct):
    text: str = ""


class Params(msgspec.Struct):
    arguments: Arguments = msgspec.field(default_factory=Arguments)


class Call(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: Params = msgspec.field(default_factory=Params)


_decode = msgspec.json.Decoder(Call).decode
_encode = msgspec.json.Encoder().encode
_INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "bench", "version": "1"},
}


class Upstream(ServerProtocol):
    calls = 0
    """Of all connections."""

    def reply(self, message: Message) -> bytes:
        if message.head.startswith(b"get /stats "):
            return response(_encode({"calls": Upstream.calls}))
        if not message.body:
            return response(b"{}")
        call = _decode(message.body)
        if call.method == "tools/call":
            Upstream.calls += 1
            return response(
                b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":%b}],"isError":false}}'
                % (_encode(call.id), _encode(call.params.arguments.text))
            )
        result: dict[str, Any] = {}
        extra = b""
        if call.method == "initialize":
            result = _INITIALIZED
            extra = b"mcp-session-id: %b\r\n" % secrets.token_hex(16).encode()
        elif call.method == "tools/list":
            result = {"tools": [DEFINITION]}
        return response(_encode({"jsonrpc": "2.0", "id": call.id, "result": result}), extra=extra)


if __name__ == "__main__":
    serve(Upstream, int(sys.argv[1]))
