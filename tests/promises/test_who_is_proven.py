"""Nobody is taken for somebody else: what proves an identity, and what does not."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey
from tests.edges.authn_world import AUDIENCE, ISSUER, NOON, SetClock, World, claims, door_of, ec, issuer, jwks, sign

from whygate.authn import api_key
from whygate.core.calls import Fault
from whygate.core.identity import IdentityType, Principal, Proof, Status
from whygate.core.reasons import Code

NOW = int(NOON.timestamp())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, Any], payload: dict[str, Any], signature: bytes = b"") -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(payload).encode())}.{b64(signature)}"


async def test_a_signed_token_proves_its_subject(world: World) -> None:
    """A valid token yields the inventory's entry, with the token's own hash as fingerprint."""
    token = world.token(roles=["night-shift"], scope="tools:read tools:call")
    who = await world.ask(token)
    assert who == Principal(
        id="agent:support",
        type=IdentityType.AI_AGENT,
        proof=Proof.JWT,
        credential="sha256:" + hashlib.sha256(token.encode()).hexdigest()[:16],
        issuer=ISSUER,
        owner="support@example.com",
        roles=("night-shift", "support"),
        scopes=("tools:call", "tools:read"),
        adopt_trace=True,
    )


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "PS256", "EdDSA", "Ed25519"])
async def test_each_listed_algorithm_works(algorithm: str, tmp_path: Path) -> None:
    """Every asymmetric algorithm that the operator may list verifies a real signature."""
    kinds: dict[str, Any] = {
        "ES256": lambda: ECKey.generate_key("P-256", {"kid": "k"}),
        "ES384": lambda: ECKey.generate_key("P-384", {"kid": "k"}),
        "RS256": lambda: RSAKey.generate_key(2048, {"kid": "k"}),
        "PS256": lambda: RSAKey.generate_key(2048, {"kid": "k"}),
        "EdDSA": lambda: OKPKey.generate_key("Ed25519", {"kid": "k"}),
        "Ed25519": lambda: OKPKey.generate_key("Ed25519", {"kid": "k"}),
    }
    world = World(tmp_path, algorithms=[algorithm])
    key = kinds[algorithm]()
    world.publish(key)
    signing = "Ed25519" if algorithm == "EdDSA" else algorithm
    token = sign(key, claims(), signing)
    if algorithm == "EdDSA":  # the library no longer signs under the old name, of which the signature is the same
        head = b64(json.dumps({"alg": "EdDSA", "kid": "k"}).encode())
        body = token.split(".")[1]
        token = f"{head}.{body}.{b64(key.private_key.sign(f'{head}.{body}'.encode()))}"
    assert (await world.ask(token)).id == "agent:support"


async def test_no_algorithm_is_no_signature(world: World) -> None:
    """``alg: none`` proves nothing, in any spelling, with or without a signature."""
    for name in ("none", "None", "NONE", ""):
        for signature in (b"", b"x"):
            who = await world.ask(forged({"alg": name, "kid": "one"}, claims(), signature))
            assert isinstance(who, Fault)
            assert who.code is Code.AGENT_UNAUTHENTICATED


async def test_a_public_key_is_no_shared_secret(world: World) -> None:
    """HS256 with the bytes of the public key as secret (RFC 8725 section 2.1) is refused, in each form of the key."""
    secrets = [jwks(world.key), world.key.as_pem(private=False), json.dumps(world.key.as_dict(private=False)).encode()]
    for secret in secrets:
        signed = forged({"alg": "HS256", "kid": "one"}, claims()).rsplit(".", 1)[0]
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        who = await world.ask(f"{signed}.{b64(mac)}")
        assert who == Fault(
            code=Code.AGENT_UNAUTHENTICATED, note=f"the token's algorithm is not on the list for {ISSUER}"
        )


async def test_shared_secrets_in_a_key_set_are_ignored(world: World) -> None:
    """A symmetric key that slipped into the issuer's set verifies nothing, and spoils no other key."""
    published = json.loads(jwks(world.key))
    published["keys"].insert(0, {"kty": "oct", "k": b64(b"secret" * 8), "kid": "one", "alg": "ES256"})
    world.file.write_text(json.dumps(published))
    assert (await world.ask(world.token())).id == "agent:support"


async def test_an_unlisted_algorithm_is_refused(world: World) -> None:
    """A good signature by an algorithm that the operator did not list is none."""
    key = ECKey.generate_key("P-384", {"kid": "big"})
    world.publish(world.key, key)
    assert (await world.ask(sign(key, claims(), "ES384"))).code is Code.AGENT_UNAUTHENTICATED


async def test_keys_in_the_header_are_not_believed(world: World) -> None:
    """A token that brings its own key, or says where to fetch one, is checked against the issuer's keys alone."""
    mine = ec()
    for extra in ({"jwk": mine.as_dict(private=False)}, {"jku": "https://evil.example/jwks"}, {"x5c": ["AAAA"]}):
        assert (await world.ask(sign(mine, claims(), **extra))).code is Code.AGENT_UNAUTHENTICATED


async def test_what_is_critical_and_not_understood_refuses(world: World) -> None:
    """``crit`` refuses (RFC 7515 section 4.1.11), and so does ``b64``, which changes what was signed (RFC 7797)."""
    for extra in ({"crit": ["exp"]}, {"crit": []}, {"b64": True}):
        header = {"alg": "ES256", "kid": "one", **extra}
        unsigned = forged(header, claims()).rsplit(".", 1)[0]
        good = sign(world.key, claims()).rsplit(".", 1)[1]
        assert (await world.ask(f"{unsigned}.{good}")).note == "the token's header has critical parameters"


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE"])
async def test_a_token_for_another_purpose_is_refused(world: World, kind: str) -> None:
    """A token whose ``typ`` names another use is no access token (RFC 8725 section 3.11)."""
    assert (await world.ask(sign(world.key, claims(), typ=kind))).code is Code.AGENT_UNAUTHENTICATED


@pytest.mark.parametrize("kind", [None, "JWT", "at+jwt", "application/at+jwt", "AT+JWT"])
async def test_the_usual_types_are_accepted(world: World, kind: str | None) -> None:
    """RFC 9068's ``at+jwt``, the common ``JWT`` and no type at all are access tokens."""
    assert (await world.ask(sign(world.key, claims(), typ=kind))).id == "agent:support"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"exp": None}, Code.AGENT_UNAUTHENTICATED),
        ({"exp": "soon"}, Code.AGENT_UNAUTHENTICATED),
        ({"exp": True}, Code.AGENT_UNAUTHENTICATED),
        ({"exp": NOW}, Code.AGENT_TOKEN_EXPIRED),
        ({"exp": NOW - 1}, Code.AGENT_TOKEN_EXPIRED),
        ({"nbf": NOW + 31}, Code.AGENT_UNAUTHENTICATED),
        ({"iat": NOW + 31}, Code.AGENT_UNAUTHENTICATED),
        ({"iat": "yesterday"}, Code.AGENT_UNAUTHENTICATED),
        ({"aud": None}, Code.AGENT_TOKEN_AUDIENCE),
        ({"aud": "https://other.example"}, Code.AGENT_TOKEN_AUDIENCE),
        ({"aud": AUDIENCE + "/"}, Code.AGENT_TOKEN_AUDIENCE),
        ({"aud": ["https://other.example", 7]}, Code.AGENT_TOKEN_AUDIENCE),
        ({"aud": {AUDIENCE: 1}}, Code.AGENT_TOKEN_AUDIENCE),
        ({"iss": None}, Code.AGENT_UNAUTHENTICATED),
        ({"iss": ISSUER + "/"}, Code.AGENT_UNAUTHENTICATED),
        ({"iss": [ISSUER]}, Code.AGENT_UNAUTHENTICATED),
        ({"sub": None}, Code.AGENT_UNAUTHENTICATED),
        ({"sub": ""}, Code.AGENT_UNAUTHENTICATED),
        ({"sub": "agent:nobody"}, Code.AGENT_UNAUTHENTICATED),
        ({"cnf": {"jkt": "x"}}, Code.AGENT_UNAUTHENTICATED),
        ({"roles": {"admin": True}}, Code.AGENT_UNAUTHENTICATED),
        ({"roles": ["ok", 3]}, Code.AGENT_UNAUTHENTICATED),
        ({"scope": 3}, Code.AGENT_UNAUTHENTICATED),
    ],
)
async def test_each_claim_has_to_hold(world: World, change: dict[str, Any], code: Code) -> None:
    """A good signature does not help a token whose claims do not hold, and the reason says which kind it is."""
    who = await world.ask(world.token(**change))
    assert isinstance(who, Fault)
    assert who.code is code
    assert who.note


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW + 1},
        {"exp": NOW + 0.5},
        {"exp": 1e15},
        {"nbf": NOW + 30},
        {"iat": NOW + 30},
        {"aud": ["https://other.example", AUDIENCE]},
        {"iat": None},
    ],
)
async def test_what_is_just_within_the_rules_is_accepted(world: World, change: dict[str, Any]) -> None:
    """Clocks may differ by 30 seconds in ``nbf`` and ``iat``, and one audience of several is enough."""
    assert (await world.ask(world.token(**change))).id == "agent:support"


async def test_a_token_ends_to_the_second_though_remembered(world: World) -> None:
    """A token that was believed a moment ago is refused from the second of its ``exp`` on."""
    token = world.token(exp=NOW + 100)
    world.clock.forward(99.9)
    assert (await world.ask(token)).id == "agent:support"
    assert (await world.ask(token)).id == "agent:support"
    world.clock.forward(0.1)
    assert (await world.ask(token)).code is Code.AGENT_TOKEN_EXPIRED


async def test_a_withdrawn_key_ends_its_tokens_though_remembered(world: World) -> None:
    """Once a key left the issuer's set, what it signed is refused, and what the new one signs is accepted."""
    old, token = world.key, world.token()
    assert (await world.ask(token)).id == "agent:support"
    world.key = ec("two")
    world.publish(old, world.key)
    world.clock.forward(1)
    assert (await world.ask(token)).id == "agent:support"
    assert (await world.ask(world.token())).id == "agent:support"
    world.publish(world.key)
    world.clock.forward(1)
    assert (await world.ask(token)).code is Code.AGENT_UNAUTHENTICATED
    assert (await world.ask(world.token())).id == "agent:support"


async def test_a_kid_that_changes_hands_ends_the_old_tokens(world: World) -> None:
    """A key is known by its own thumbprint: a new key under the same ``kid`` does not keep old tokens alive."""
    token = world.token()
    await world.ask(token)
    world.publish(ec("one"))
    world.clock.forward(1)
    assert (await world.ask(token)).code is Code.AGENT_UNAUTHENTICATED


async def test_another_key_under_the_same_kid_signs_for_nobody(world: World) -> None:
    """A token signed by a stranger's key is refused, whatever ``kid`` it names or leaves out."""
    for kid in ("one", "two", None):
        assert (await world.ask(sign(ec(), claims(), kid=kid))).code is Code.AGENT_UNAUTHENTICATED


async def test_without_a_kid_there_must_be_one_key(world: World) -> None:
    """A token may leave out ``kid`` only where one key can be meant."""
    token = sign(world.key, claims(), kid=None)
    assert (await world.ask(token)).id == "agent:support"
    world.publish(world.key, ec("two"))
    world.clock.forward(1)
    assert (await world.ask(sign(world.key, claims(jti="x"), kid=None))).code is Code.AGENT_UNAUTHENTICATED


async def test_a_key_for_encryption_signs_nothing(world: World) -> None:
    """``use: enc``, ``key_ops`` without ``verify`` and another ``alg`` each keep a key from verifying."""
    for mark in ({"use": "enc"}, {"key_ops": ["deriveKey"]}, {"alg": "ES384"}):
        world.file.write_text(json.dumps({"keys": [{**world.key.as_dict(private=False), **mark}]}))
        world.clock.forward(1)
        assert (await world.ask(world.token())).code is Code.AGENT_UNAUTHENTICATED


async def test_an_issuer_speaks_only_for_its_own_agents(tmp_path: Path) -> None:
    """With two issuers, an agent is proven by the one on its entry; the other can't mint it, listed subjects or not."""
    clock, ours, theirs = SetClock(), ec(), ec()
    (tmp_path / "ours.json").write_bytes(jwks(ours))
    (tmp_path / "theirs.json").write_bytes(jwks(theirs))
    door = door_of(
        clock,
        issuer("file:ours.json"),
        issuer("file:theirs.json", issuer="https://partner.example", unlisted_as="human"),
        agents=[{"id": "agent:support", "issuer": ISSUER}, {"id": "agent:loose"}],
        base=tmp_path,
    )
    assert (await door.identify("Bearer " + sign(ours, claims()))).id == "agent:support"
    for subject in ("agent:support", "agent:loose"):
        stolen = sign(theirs, claims(iss="https://partner.example", sub=subject))
        assert (await door.identify(f"Bearer {stolen}")).code is Code.AGENT_UNAUTHENTICATED
    guest = await door.identify("Bearer " + sign(theirs, claims(iss="https://partner.example", sub="u-17")))
    assert isinstance(guest, Principal)
    assert (guest.type, guest.issuer, guest.owner) == (IdentityType.HUMAN, "https://partner.example", "")


@pytest.mark.parametrize(
    "subject", ["role:finance", "group:all", "anonymous", "*", "a\nb", "a\x00", "x" * 257, 7, ["a"]]
)
async def test_a_subject_is_never_taken_for_a_role(tmp_path: Path, subject: Any) -> None:
    """Ids that a policy's selector would read as a role, a group or everybody are refused, even from a good issuer."""
    world = World(tmp_path, unlisted_as="human")
    assert (await world.ask(world.token(sub=subject))).code is Code.AGENT_UNAUTHENTICATED


async def test_suspension_is_told_and_not_hidden(world: World) -> None:
    """A suspended agent is recognised, with its status: why it is refused can then be said."""
    who = await world.ask(world.token(sub="agent:paused"))
    assert (who.id, who.status) == ("agent:paused", Status.SUSPENDED)


async def test_an_api_key_proves_the_agent_that_has_its_hash() -> None:
    """The whole key proves its agent; a cut, changed, lengthened or foreign one proves nobody."""
    key, other = api_key.from_random(bytes(range(32))), api_key.from_random(bytes(32))
    door = door_of(SetClock(), agents=[{"id": "a", "roles": ["r"], "api_keys": [api_key.stored(key)]}])
    who = await door.identify(f"bearer  {key}")
    assert isinstance(who, Principal)
    assert (who.id, who.proof, who.roles) == ("a", Proof.API_KEY, ("r",))
    assert who.credential == api_key.stored(key)[:23]
    for wrong in (other, key[:-1], key + "A", key.swapcase(), key[3:], api_key.stored(key)):
        refused = await door.identify(f"Bearer {wrong}")
        assert isinstance(refused, Fault)
        assert refused.code is Code.AGENT_UNAUTHENTICATED
        assert wrong not in refused.note


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer  ",
        "wg_x",
        "DPoP abc",
        "Bearer a b",
        "Bearer é",
        "Bearer " + "a" * 17000,
    ],
)
async def test_what_is_no_bearer_token_proves_nobody(world: World, header: str | None) -> None:
    """A missing, foreign, broken or oversized credential is a fault with a note, never an error."""
    who = await world.door.identify(header)
    assert isinstance(who, Fault)
    assert who.code is Code.AGENT_UNAUTHENTICATED
    assert who.note


async def test_the_largest_token_that_is_read(world: World) -> None:
    """Up to 16 KiB a token is read; beyond, it is refused before anything looks into it."""
    room = 16 * 1024 - len(world.token(pad=""))
    fits = world.token(pad="x" * (room * 3 // 4 - 8))
    assert len(fits) <= 16 * 1024
    assert (await world.ask(fits)).id == "agent:support"
    assert "longer than" in (await world.ask(world.token(pad="x" * 16 * 1024))).note


async def test_duplicate_keys_in_a_token_refuse_it(world: World) -> None:
    """A token whose JSON can be read in two ways is refused, though its signature is good."""
    payload = json.dumps(claims())[:-1] + ', "sub": "agent:planner"}'
    assert (await world.ask(sign(world.key, payload.encode()))).code is Code.AGENT_UNAUTHENTICATED


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
async def test_a_changed_token_proves_nobody(world: World, data: st.DataObject) -> None:
    """Change any character of a good token, and it is refused, or still exactly the token that was signed."""
    token = world.token()
    at = data.draw(st.integers(0, len(token) - 1))
    changed = token[:at] + data.draw(st.characters(min_codepoint=32, max_codepoint=126)) + token[at + 1 :]
    who = await world.ask(changed)
    if isinstance(who, Principal):
        # The last character of base64url has bits that stand for nothing: the signature is the same.
        assert changed.rsplit(".", 1)[0] == token.rsplit(".", 1)[0]
        assert at == len(token) - 1 or changed == token


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=200), dots=st.lists(st.binary(max_size=60), min_size=3, max_size=3))
async def test_whatever_is_sent_has_an_answer(world: World, text: str, dots: list[bytes]) -> None:
    """No credential makes the door raise, and none of it gets into a note."""
    for token in (text, ".".join(b64(part) for part in dots)):
        who = await world.ask(token)
        assert isinstance(who, Fault)
        assert len(token) < 12 or token not in who.note


async def test_a_door_tells_no_secret(world: World) -> None:
    """Neither the door nor what it remembers shows a credential."""
    token = world.token()
    who = await world.ask(token)
    shown = f"{world.door!r} {world.door._believed!r} {who!r}"
    assert token not in shown
    assert token.rsplit(".", 1)[1] not in shown
