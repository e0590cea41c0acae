"""What users prove who they are with, besides a password."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from .authorization import is_loopback

#: What comes of an answer that is not a passkey's, or is another's.
WRONG = (ValueError, LookupError, TypeError, InvalidSignature)

_RP = "localhost"  # the site that passkeys are for
_STEP = 30  # seconds that a one-time code is shown


@dataclass
class Method:
    """One way of a user's: "totp", "recovery-code" or "passkey"."""

    id: str
    type: str
    secret: str  # or public key
    created_at: str
    confirmed: bool  # that it works
    name: str = ""  # of its user's choice
    key_id: str = ""  # what the browser calls a passkey


class Methods:
    """The methods of all users, each under the user's ``sub``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of: dict[str, list[Method]] = {}

    def add(self, sub: str, kind: str, secret: str, *, confirmed: bool) -> Method:
        """Give a user a method."""
        name = f"{kind}|{secrets.token_urlsafe(12)}"
        method = Method(name, kind, secret, timestamp(self._clock()), confirmed)
        self._of.setdefault(sub, []).append(method)
        return method

    def add_totp(self, sub: str, *, confirmed: bool = False) -> Method:
        """Give a user an authenticator of one-time codes."""
        secret = base64.b32encode(secrets.token_bytes(20)).decode()
        return self.add(sub, "totp", secret, confirmed=confirmed)

    def add_recovery_code(self, sub: str) -> Method:
        """Give a user a new recovery code in place of the old."""
        for old in self.of(sub, "recovery-code"):
            self.remove(sub, old)
        code = secrets.token_hex(12).upper()
        return self.add(sub, "recovery-code", code, confirmed=True)

    def of(self, sub: str, *kinds: str) -> list[Method]:
        """Return a user's methods of these kinds, or all of them."""
        return [m for m in list(self._of.get(sub, ())) if not kinds or m.type in kinds]

    def second_factors(self, sub: str) -> list[Method]:
        """Return what the user can be asked for after a password."""
        codes = [method for method in self.of(sub, "totp") if method.confirmed]
        # A recovery code stands in for another factor and is none by itself.
        return [*codes, *self.of(sub, "recovery-code")] if codes else []

    def passkey(self, key_id: str) -> tuple[str, Method]:
        """Return whose passkey this is, and itself, or raise a LookupError."""
        for sub in list(self._of):
            for method in self.of(sub, "passkey"):
                if method.confirmed and method.key_id == key_id:
                    return sub, method
        raise LookupError("it is unknown here")

    def codes(self) -> list[tuple[str, str]]:
        """Return what all authenticators show now, each with its user's ``sub``."""
        subs = list(self._of)
        return [(sub, self.code(m)) for sub in subs for m in self.of(sub, "totp")]

    def remove(self, sub: str, method: Method) -> None:
        """Take a method from its user."""
        self._of[sub].remove(method)

    def code(self, method: Method, steps: int = 0) -> str:
        """Return what an authenticator shows now, or some steps of 30 s from now."""
        return _totp(method).generate(int(self._clock()) + steps * _STEP).decode()

    def shows(self, method: Method, code: str) -> bool:
        """Whether an authenticator shows this code, or did or will within 30 s."""
        return any(same(self.code(method, step), code) for step in (-1, 0, 1))

    def takes(self, sub: str, code: str, *kinds: str) -> bool:
        """Whether a user has this code: an authenticator's, or a recovery code.

        The one is confirmed by that, the other good once.
        """
        for method in self.of(sub, *kinds or ("totp", "recovery-code")):
            if method.type == "totp" and self.shows(method, code):
                method.confirmed = True
                return True
            if method.type != "totp" and same(method.secret, code):
                self.remove(sub, method)
                return True
        return False


@dataclass(frozen=True)
class Ceremony:
    """A passkey about to be made or shown (Web Authentication, Level 3).

    Its methods raise what is in ``WRONG`` where an answer is wrong.
    """

    kind: str  # "create" or "get"
    name: str = ""  # of who signs up
    email: str = ""
    challenge: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def options(self) -> dict[str, Any]:
        """What the browser's ``navigator.credentials`` is given."""
        shared = {"challenge": self.challenge, "timeout": 60000}
        if self.kind == "get":
            return {**shared, "rpId": _RP, "userVerification": "preferred"}
        name = self.email or self.name or "somebody"
        return {
            **shared,
            "rp": {"id": _RP, "name": "Stand-in for Auth0"},
            "user": {
                "id": secrets.token_urlsafe(16),
                "name": name,
                "displayName": name,
            },
            "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
            "authenticatorSelection": {"residentKey": "required"},
        }

    def key_of(self, answer: dict[str, Any]) -> str:
        """Return the public key of a passkey that was made for this."""
        self._client_data(answer)
        key: str = answer["response"]["publicKey"]  # as its toJSON() has it
        if not isinstance(load_der_public_key(_bytes(key)), EllipticCurvePublicKey):
            raise ValueError("only ES256 is known here")
        return key

    def check(self, answer: dict[str, Any], public_key: str) -> None:
        """Check what a passkey has signed."""
        client_data = self._client_data(answer)
        data = _bytes(answer["response"]["authenticatorData"])
        if data[:32] != sha256(_RP.encode()).digest():
            raise ValueError("it is of another site")
        key = cast(EllipticCurvePublicKey, load_der_public_key(_bytes(public_key)))
        signature = _bytes(answer["response"]["signature"])
        key.verify(signature, data + sha256(client_data).digest(), ECDSA(SHA256()))

    def _client_data(self, answer: dict[str, Any]) -> bytes:
        data = _bytes(answer["response"]["clientDataJSON"])
        said = json.loads(data)
        if not same(self.challenge, said["challenge"]):
            raise ValueError("the challenge is another")
        if said["type"] != f"webauthn.{self.kind}" or not is_loopback(said["origin"]):
            raise ValueError("it is for something else")
        return data


def barcode(method: Method, label: str) -> str:
    """Return the address in the QR code that an authenticator app reads."""
    return _totp(method).get_provisioning_uri(label, "tenant")


def _totp(method: Method) -> TOTP:
    # RFC 6238 has SHA-1, and some authenticator apps know nothing else.
    algorithm = SHA1()  # noqa: S303  # nosec B303
    return TOTP(base64.b32decode(method.secret), 6, algorithm, _STEP)


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def timestamp(seconds: float) -> str:
    """Return a time in the form of RFC 3339."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()


def proves(verifier: str, challenge: str) -> bool:
    """Whether a code verifier is the one that a challenge is of (RFC 7636, 4.6)."""
    digest = base64.urlsafe_b64encode(sha256(verifier.encode()).digest())
    return same(challenge, digest.rstrip(b"=").decode())


def same(one: str, other: str) -> bool:
    """Whether two texts are equal, in a time that tells nothing about them."""
    return hmac.compare_digest(one.encode(), other.encode())
