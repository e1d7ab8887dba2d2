"""Passkeys: enrolment, sign-in, and the signature under an answer (WebAuthn level 2, sections 7.1 and 7.2).

Rules of this file:

1. The user is verified (PIN, finger, face) every time, for the console's own name and origin.
2. A challenge is good for one ceremony, of the kind it was made for, for five minutes. What signs an answer is the hash of a
   nonce and of what was shown and chosen (``core.shown.challenge``).
3. A counter that goes back means a copied key: refused.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, options_to_json_dict
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from whygate.core.events import Passkey, Person, Signature
from whygate.core.shown import Choice, challenge

CEREMONY_S: Final = 300
MOST: Final = 10_000
_VERIFIED: Final = UserVerificationRequirement.REQUIRED
_SELECTED: Final = AuthenticatorSelectionCriteria(
    resident_key=ResidentKeyRequirement.PREFERRED, user_verification=_VERIFIED
)


class NotProven(Exception):
    """The ceremony did not prove who somebody is; the message may be shown to them."""


class Passkeys:
    """Belongs to the event loop. ``clock`` gives monotonic seconds."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        """``url``: the console's, as people's browsers see it."""
        parts = urlsplit(url)
        self.name = parts.hostname or "localhost"
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self._clock = clock
        self._begun: dict[str, tuple[str, bytes, float]] = {}
        self._counts: dict[str, int] = {}
        """By credential: the highest counter seen since the start."""

    def begin(self, kind: str, made: bytes | None = None) -> tuple[str, bytes]:
        """A ceremony of this kind: its id, and its challenge (random, unless ``made``)."""
        now = self._clock()
        while len(self._begun) >= MOST or (self._begun and next(iter(self._begun.values()))[2] <= now):
            del self._begun[next(iter(self._begun))]
        identity, value = secrets.token_urlsafe(24), made or secrets.token_bytes(32)
        self._begun[identity] = kind, value, now + CEREMONY_S
        return identity, value

    def _spend(self, identity: str, kind: str) -> bytes:
        of, value, until = self._begun.pop(identity, ("", b"", 0.0))
        if of != kind or self._clock() >= until:
            raise NotProven("This page is too old, or was used already. Load it again.")
        return value

    # --- enrolment ---

    def enrolling(self, person: Person) -> dict[str, Any]:
        """Options for ``navigator.credentials.create``, and the ceremony's id."""
        identity, value = self.begin(f"enrol {person.id}")
        options = webauthn.generate_registration_options(
            rp_id=self.name,
            rp_name="whygate",
            user_name=person.id,
            user_display_name=person.name or person.id,
            challenge=value,
            authenticator_selection=_SELECTED,
            exclude_credentials=_descriptors(person.passkeys),
        )
        return {"ceremony": identity, "options": options_to_json_dict(options)}

    def enrolled(self, person: Person, said: str) -> Passkey:
        """The new passkey. Raises ``NotProven``."""
        identity, response = _read(said)
        value = self._spend(identity, f"enrol {person.id}")
        try:
            made = webauthn.verify_registration_response(
                credential=response,
                expected_challenge=value,
                expected_rp_id=self.name,
                expected_origin=self.origin,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, KeyError, TypeError) as wrong:
            raise NotProven("The passkey could not be enrolled.") from wrong
        return Passkey(
            credential=bytes_to_base64url(made.credential_id),
            public_key=bytes_to_base64url(made.credential_public_key),
            sign_count=made.sign_count,
        )

    # --- sign-in, and signing ---

    def asking(self, kind: str, allowed: Sequence[Passkey] = (), made: bytes | None = None) -> dict[str, Any]:
        """Options for ``navigator.credentials.get``, and the ceremony's id."""
        identity, value = self.begin(kind, made)
        options = webauthn.generate_authentication_options(
            rp_id=self.name,
            challenge=value,
            allow_credentials=_descriptors(allowed) or None,
            user_verification=_VERIFIED,
        )
        return {"ceremony": identity, "options": options_to_json_dict(options)}

    @staticmethod
    def credential(said: str) -> str:
        """Which passkey an assertion says it is of. Raises ``NotProven``."""
        _, response = _read(said)
        found = response.get("id")
        if not isinstance(found, str):
            raise NotProven("This is no passkey's answer.")
        return found

    def proven(self, kind: str, said: str, passkey: Passkey, made: bytes | None = None) -> Signature:
        """The assertion, verified; ``nonce`` is left to whoever knows it. ``made``: what had to be signed, where that was no
        random challenge. Raises ``NotProven``.
        """
        identity, response = _read(said)
        value = self._spend(identity, kind)
        if made is not None and made != value:
            raise NotProven("What was signed is not what was chosen. Load the page again.")
        known = max(passkey.sign_count, self._counts.get(passkey.credential, 0))
        try:
            verified = webauthn.verify_authentication_response(
                credential=response,
                expected_challenge=value,
                expected_rp_id=self.name,
                expected_origin=self.origin,
                credential_public_key=base64url_to_bytes(passkey.public_key),
                credential_current_sign_count=known,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, KeyError, TypeError) as wrong:
            raise NotProven("The passkey did not prove that it is you.") from wrong
        self._counts[passkey.credential] = verified.new_sign_count
        inner = response["response"]
        return Signature(
            authenticator_data=inner["authenticatorData"],
            client_data=inner["clientDataJSON"],
            credential=passkey.credential,
            nonce="",
            signature=inner["signature"],
        )


def check(signature: Signature, passkey: Passkey, about: tuple[str, Choice], name: str, origin: str) -> bool:
    """Whether a signature in the record of an answer is that passkey's, over what was shown and chosen (``about``). Needs the
    records alone: for auditors, years later.
    """
    shown, choice = about
    value = challenge(base64url_to_bytes(signature.nonce), shown, choice)
    response = {
        "id": signature.credential,
        "rawId": signature.credential,
        "type": "public-key",
        "response": {
            "authenticatorData": signature.authenticator_data,
            "clientDataJSON": signature.client_data,
            "signature": signature.signature,
        },
    }
    try:
        webauthn.verify_authentication_response(
            credential=response,
            expected_challenge=value,
            expected_rp_id=name,
            expected_origin=origin,
            credential_public_key=base64url_to_bytes(passkey.public_key),
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError):
        return False
    return True


def _descriptors(passkeys: Sequence[Passkey]) -> list[PublicKeyCredentialDescriptor]:
    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(each.credential)) for each in passkeys]


def _read(said: str) -> tuple[str, dict[str, Any]]:
    """The ceremony's id and the browser's answer, as the form carries them. Raises ``NotProven``."""
    try:
        made = json.loads(said) if len(said) <= 32_768 else None
    except (ValueError, RecursionError):
        made = None
    if not isinstance(made, dict) or not isinstance(made.get("response"), dict):
        raise NotProven("No passkey was shown: this needs a browser with JavaScript.")
    return str(made.get("ceremony", "")), made["response"]
