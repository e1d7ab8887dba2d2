"""An issuer's keys, from a file and from a real server that is down, slow, wrong or rotating."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from tests.edges.authn_world import (
    ISSUER,
    SetClock,
    World,
    claims,
    door_of,
    ec,
    issuer,
    jwks,
    key_server,
    respond,
    sign,
)

from whygate.authn.door import Door
from whygate.authn.jwks import KeysUnreadable, UrlKeys, parse
from whygate.config import from_mapping
from whygate.core.calls import Fault
from whygate.core.identity import Principal

Answer = Callable[[BaseHTTPRequestHandler], None]


class Served:
    """An issuer whose keys are behind a URL; ``answer`` may be changed while it runs."""

    def __init__(self) -> None:
        self.key, self.clock = ec(), SetClock()
        self.answer: Answer = lambda handler: respond(handler, jwks(self.key))
        self.asked: list[str] = []
        self.reached = threading.Event()
        self.door: Door
        self.keys: UrlKeys

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        self.reached.set()
        self.answer(handler)

    async def ask(self, key: Any = None, **more: Any) -> Principal | Fault:
        return await self.door.identify("Bearer " + sign(key or self.key, claims(**more)))


@asynccontextmanager
async def served(timeout_s: float = 5.0) -> AsyncIterator[Served]:
    world = Served()
    with key_server(world.respond) as (url, world.asked):
        world.door = door_of(world.clock, issuer(url))
        assert world.door._client is not None
        world.keys = UrlKeys(url, world.door._client, timeout_s=timeout_s)
        world.door._issuers[ISSUER] = (world.door._issuers[ISSUER][0], world.keys)
        try:
            yield world
        finally:
            await world.door.close()


async def test_keys_come_from_the_url_and_are_kept() -> None:
    """The first token waits for the keys; the next ones find them there."""
    async with served() as world:
        for number in range(5):
            assert isinstance(await world.ask(jti=str(number)), Principal)
        assert world.asked == ["/jwks"]
        assert world.door.problems() == {}


async def test_concurrent_callers_share_one_request() -> None:
    """However many callers wait for the same keys, the issuer is asked once."""
    async with served() as world:
        who = await asyncio.gather(*(world.ask(jti=str(number)) for number in range(50)))
        assert all(isinstance(each, Principal) for each in who)
        assert len(world.asked) == 1


async def test_a_caller_who_leaves_takes_nothing_from_the_others() -> None:
    """A caller who hangs up while keys are fetched does not cancel the request that others wait for."""
    held = threading.Event()

    async with served() as world:

        def answer(handler: BaseHTTPRequestHandler) -> None:
            held.wait(10)
            respond(handler, jwks(world.key))

        world.answer = answer
        leaves, stays = asyncio.create_task(world.ask(jti="1")), asyncio.create_task(world.ask(jti="2"))
        assert await asyncio.to_thread(world.reached.wait, 10)
        leaves.cancel()
        held.set()
        assert isinstance(await stays, Principal)
        assert len(world.asked) == 1


async def test_unknown_kids_cannot_hammer_the_issuer() -> None:
    """A flood of tokens with kids that nobody knows leads to one request in ten seconds."""
    async with served() as world:
        for number in range(30):
            assert isinstance(await world.ask(ec(f"kid-{number}")), Fault)
        assert len(world.asked) == 1
        world.clock.forward(10)
        for number in range(30):
            assert isinstance(await world.ask(ec(f"kid-{number}")), Fault)
        assert len(world.asked) == 2


async def test_a_new_key_is_found_by_its_kid() -> None:
    """A token by a key that was published a moment ago is accepted without waiting for the next round."""
    async with served() as world:
        assert isinstance(await world.ask(), Principal)
        world.key = ec("two")
        world.clock.forward(10)
        assert isinstance(await world.ask(), Principal)
        assert len(world.asked) == 2


async def test_a_withdrawn_key_is_not_believed_for_longer_than_a_round() -> None:
    """Five minutes after a key was withdrawn a call brings in the fresh set, and its remembered tokens are refused."""
    async with served() as world:
        old, token = world.key, sign(world.key, claims())
        assert isinstance(await world.door.identify(f"Bearer {token}"), Principal)
        world.key = ec("two")
        world.clock.forward(299)
        assert isinstance(await world.ask(old, jti="x", exp=2_000_000_000), Principal)
        world.clock.forward(1)
        await world.ask(old, jti="x", exp=2_000_000_000)
        await world.keys.settled()
        assert isinstance(await world.ask(old, jti="x", exp=2_000_000_000), Fault)
        assert isinstance(await world.door.identify(f"Bearer {token}"), Fault)


async def test_an_empty_set_is_an_answer() -> None:
    """An issuer that publishes no key has withdrawn them all."""
    async with served() as world:
        assert isinstance(await world.ask(), Principal)
        world.answer = lambda handler: respond(handler, b'{"keys": []}')
        world.clock.forward(300)
        await world.ask()
        await world.keys.settled()
        assert isinstance(await world.ask(), Fault)


BAD: dict[str, Answer] = {
    "down": lambda handler: handler.connection.close(),
    "status": lambda handler: respond(handler, jwks(ec()), status=503),
    "redirect": lambda handler: respond(handler, b"", status=302, location="/elsewhere"),
    "garbage": lambda handler: respond(handler, b"<html>sign in</html>"),
    "wrong shape": lambda handler: respond(handler, b'{"keys": {"kid": "one"}}'),
    "a list": lambda handler: respond(handler, b"[]"),
    "twice": lambda handler: respond(handler, b'{"keys": [], "keys": []}'),
    "too many": lambda handler: respond(handler, json.dumps({"keys": [{}] * 65}).encode()),
    "packed": lambda handler: respond(handler, b"\x1f\x8b\x08\x00", **{"content-encoding": "gzip"}),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_answer_leaves_the_last_good_keys_for_an_hour(kind: str) -> None:
    """While the issuer can't be asked, known keys hold for an hour and then no longer; the reason is told."""
    async with served() as world:
        good = world.answer
        assert isinstance(await world.ask(exp=2_000_000_000), Principal)
        world.answer = BAD[kind]
        world.clock.forward(300)
        await world.ask(exp=2_000_000_000)
        await world.keys.settled()
        assert "can't be fetched" in world.door.problems()[ISSUER]
        assert isinstance(await world.ask(exp=2_000_000_000, jti="y"), Principal)
        world.clock.forward(3299)
        assert isinstance(await world.ask(exp=2_000_000_000, jti="z"), Principal)
        await world.keys.settled()
        world.clock.forward(10)
        refused = await world.ask(exp=2_000_000_000)
        assert isinstance(refused, Fault)
        assert "can't be fetched" in refused.note
        assert "/elsewhere" not in world.asked
        world.answer = good
        world.clock.forward(10)
        assert isinstance(await world.ask(exp=2_000_000_000), Principal)
        assert world.door.problems() == {}


async def test_an_issuer_that_is_down_from_the_start_lets_nobody_in() -> None:
    """Without keys there is no proof, and the issuer is asked again only after a while."""
    async with served() as world:
        good, world.answer = world.answer, BAD["down"]
        for _ in range(5):
            assert isinstance(await world.ask(), Fault)
        assert len(world.asked) == 1
        world.answer = good
        world.clock.forward(10)
        assert isinstance(await world.ask(), Principal)


async def test_a_huge_answer_is_cut_off() -> None:
    """More than 256 KiB is no set of keys, and is not read to its end."""
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(4096):
                handler.wfile.write(b" " * 65536)
                sent += 65536
        except OSError:
            pass

    async with served() as world:
        world.answer = endless
        assert isinstance(await world.ask(), Fault)
        assert "more than 262144 bytes" in world.keys.problem
    assert sent < 4096 * 65536


async def test_a_dripping_answer_is_given_up() -> None:
    """The time limit is for the whole answer, so that a drop now and then does not hold callers for ever."""
    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not done.wait(0.01):
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return

    async with served(timeout_s=0.2) as world:
        world.answer = drip
        try:
            assert isinstance(await world.ask(), Fault)
            assert "TimeoutError" in world.keys.problem
        finally:
            done.set()


async def test_closing_ends_a_request_that_is_under_way() -> None:
    """Stopping the gateway does not wait for an issuer that hangs."""
    held = threading.Event()
    async with served() as world:
        world.answer = lambda _: held.wait(10) and None
        waiting = asyncio.create_task(world.ask())
        assert await asyncio.to_thread(world.reached.wait, 10)
        await world.door.close()
        held.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_file_that_cannot_be_read_proves_nobody(tmp_path: Path) -> None:
    """A file of keys that is gone, broken or too large leaves no keys, and works again once it is mended."""
    world = World(tmp_path)
    token = world.token()
    assert isinstance(await world.ask(token), Principal)
    for content in (None, b"", b"{", b"{}", b" " * 300_000, b'{"keys": 3}'):
        world.file.unlink(missing_ok=True)
        if content is not None:
            world.file.write_bytes(content)
        world.clock.forward(1)
        assert isinstance(await world.ask(token), Fault)
        assert "file of keys" in world.door.problems()[ISSUER]
    world.publish(world.key)
    world.clock.forward(1)
    assert isinstance(await world.ask(token), Principal)


async def test_a_file_is_looked_at_once_a_second(tmp_path: Path) -> None:
    """Within a second the file is not asked again: recognising a caller must cost no system call."""
    world = World(tmp_path)
    token = world.token()
    await world.ask(token)
    world.file.unlink()
    world.clock.forward(0.9)
    assert isinstance(await world.ask(token), Principal)
    world.clock.forward(0.1)
    assert isinstance(await world.ask(token), Fault)


def test_a_set_keeps_only_what_can_verify() -> None:
    """Symmetric, short, encryption-only, unknown and broken keys are left out; private parts are dropped."""
    good = ec("good").as_dict(private=True)
    short = {"kty": "RSA", "kid": "short", "n": "AQ" + "A" * 170, "e": "AQAB"}
    broken = {**good, "kid": "broken", "x": "!!"}
    agree = {"kty": "OKP", "crv": "X25519", "x": "f-GavDUdFhFi14NN8oPgVkjfqKZKJelgeAoWZiadMAs"}
    strange = [{"kty": "AKP"}, {"kty": ["EC"]}, {}, 7, None, {**good, "kid": 7}, {"kty": "oct", "k": "AAAA"}]
    kept = parse(json.dumps({"keys": [short, broken, agree, *strange, good]}).encode())
    assert [signer.kid for signer in kept.values()] == ["good"]
    assert not any(signer.key.is_private for signer in kept.values())
    assert parse(jwks(RSAKey.generate_key(2048, {"kid": "r"})))
    with pytest.raises(KeysUnreadable):
        parse(b"null")


async def test_keys_come_over_https_or_from_this_machine() -> None:
    """A source that is neither a file nor a URL is refused when the door is made, not when somebody knocks."""
    config = from_mapping({"ledger": "l", "policies": "p", "identities": {"issuers": [issuer("file:/nowhere")]}})
    odd = config.identities.issuers[0].model_copy(update={"jwks": "ldap://idp.example"})
    with pytest.raises(ValueError, match="file:PATH or a URL"):
        Door((), (odd,), SetClock())


async def test_a_client_that_fails_oddly_is_told_and_not_raised() -> None:
    """Whatever httpx has to say about an address, the caller is refused and operators are told."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: 1 / 0)) as client:
        keys = UrlKeys("https://idp.example/jwks", client)
        assert await keys.find("one", "ES256", SetClock().now()) == []
        assert "ZeroDivisionError" in keys.problem
