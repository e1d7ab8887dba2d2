"""What the tests of authn share: a clock that is set, an issuer with real keys, a server for its keys."""

import datetime
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from whygate.authn.door import Door
from whygate.config import from_mapping

ISSUER = "https://idp.example"
AUDIENCE = "https://gw.example"
NOON = datetime.datetime(2026, 11, 2, 12, 0, tzinfo=datetime.UTC)
Key = ECKey | RSAKey | OKPKey


class SetClock:
    """Aware UTC time that stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime.datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += datetime.timedelta(seconds=seconds)


def ec(kid: str = "one") -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


def jwks(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def claims(**more: Any) -> dict[str, Any]:
    now = int(NOON.timestamp())
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "agent:support", "iat": now, "exp": now + 600, **more}
    return {name: value for name, value in made.items() if value is not None}


def sign(key: Key, payload: Mapping[str, Any] | bytes, alg: str = "ES256", **header: Any) -> str:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    made = {"alg": alg, "kid": key.kid, "typ": "at+jwt", **header}
    fields = {name: value for name, value in made.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
    registry.max_header_length = 8192
    return jws.serialize_compact(fields, raw, key, registry=registry)


def issuer(keys: str, **more: Any) -> dict[str, Any]:
    made = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": keys, "algorithms": ["ES256", "RS256"], **more}
    return {name: value for name, value in made.items() if value is not None}


AGENTS = (
    {"id": "agent:support", "owner": "support@example.com", "roles": ["support"], "adopt_trace": True},
    {"id": "agent:planner", "owner": "plans@example.com", "roles": ["planner"]},
    {"id": "agent:paused", "owner": "support@example.com", "status": "suspended"},
    {"id": "service:mail", "type": "service_account", "owner": "mail@example.com"},
)


def door_of(clock: SetClock, *issuers: dict[str, Any], agents: Any = AGENTS, base: Path | None = None) -> Door:
    identities = {"agents": list(agents), "issuers": list(issuers)}
    return Door.from_config(from_mapping({"ledger": "l", "policies": "p", "identities": identities}, base), clock)


class World:
    """One issuer whose keys lie in a file, and the door that believes it."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.clock, self.key, self.file = SetClock(), ec(), folder / "jwks.json"
        self.publish(self.key)
        self.door = door_of(self.clock, issuer(f"file:{self.file}", **more))

    def publish(self, *keys: Key) -> None:
        """As careful operators do: written beside, then moved into place."""
        beside = self.file.with_suffix(".new")
        beside.write_bytes(jwks(*keys))
        beside.replace(self.file)

    def token(self, **more: Any) -> str:
        return sign(self.key, claims(**more))

    async def ask(self, token: str) -> Any:
        return await self.door.identify(f"Bearer {token}")


@contextmanager
def key_server(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server on this machine: its URL, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class gives it
            """Tests print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def respond(handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("content-length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
