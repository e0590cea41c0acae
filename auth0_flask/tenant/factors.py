"""Authentication methods other than passwords."""

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

#: The exceptions that an invalid passkey response raises.
PASSKEY_ERRORS = (ValueError, LookupError, TypeError, InvalidSignature)

_RP_ID = "localhost"  # the relying party that passkeys belong to
_TIME_STEP = 30  # seconds that a one-time code is valid


@dataclass
class Method:
    """One authentication method of one user."""

    id: str
    type: str  # "totp", "recovery-code" or "passkey"
    secret: str  # the public key of a passkey
    created_at: str
    confirmed: bool  # whether enrollment is complete
    name: str = ""  # chosen by the user
    key_id: str = ""  # the credential ID of a passkey


class Methods:
    """The authentication methods of all users, by the user's ``sub``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_sub: dict[str, list[Method]] = {}

    def add(self, sub: str, kind: str, secret: str, *, confirmed: bool) -> Method:
        """Add a method to a user."""
        name = f"{kind}|{secrets.token_urlsafe(12)}"
        method = Method(name, kind, secret, timestamp(self._clock()), confirmed)
        self._by_sub.setdefault(sub, []).append(method)
        return method

    def add_totp(self, sub: str, *, confirmed: bool = False) -> Method:
        """Add an authenticator app to a user."""
        secret = base64.b32encode(secrets.token_bytes(20)).decode()
        return self.add(sub, "totp", secret, confirmed=confirmed)

    def add_recovery_code(self, sub: str) -> Method:
        """Add a recovery code to a user, in place of the old one."""
        for old in self.for_user(sub, "recovery-code"):
            self.remove(sub, old)
        code = secrets.token_hex(12).upper()
        return self.add(sub, "recovery-code", code, confirmed=True)

    def for_user(self, sub: str, *kinds: str) -> list[Method]:
        """Return a user's methods of these kinds, or all if none is given."""
        methods = list(self._by_sub.get(sub, ()))
        return [method for method in methods if not kinds or method.type in kinds]

    def second_factors(self, sub: str) -> list[Method]:
        """Return the methods that a user can use as a second factor."""
        codes = [method for method in self.for_user(sub, "totp") if method.confirmed]
        # A recovery code only replaces another factor.
        return [*codes, *self.for_user(sub, "recovery-code")] if codes else []

    def passkey(self, key_id: str) -> tuple[str, Method]:
        """Return a passkey and its user's ``sub``, or raise a LookupError."""
        for sub in list(self._by_sub):
            for method in self.for_user(sub, "passkey"):
                if method.confirmed and method.key_id == key_id:
                    return sub, method
        raise LookupError("it is unknown")

    def current_codes(self) -> list[tuple[str, str]]:
        """Return the users' ``sub`` and current codes, for all authenticator apps."""
        found = [(sub, m) for sub in list(self._by_sub) for m in self.for_user(sub)]
        return [(sub, self.totp_code(m)) for sub, m in found if m.type == "totp"]

    def remove(self, sub: str, method: Method) -> None:
        """Remove a method from its user."""
        self._by_sub[sub].remove(method)

    def totp_code(self, method: Method, steps: int = 0) -> str:
        """Return the current code, or the code some steps of 30 s from now."""
        return _totp(method).generate(int(self._clock()) + steps * _TIME_STEP).decode()

    def totp_matches(self, method: Method, code: str) -> bool:
        """Return whether a code is the current one, or is off by one step of 30 s."""
        return any(safe_equal(self.totp_code(method, n), code) for n in (-1, 0, 1))

    def accept_code(self, sub: str, code: str, *kinds: str) -> bool:
        """Return whether a one-time code or a recovery code of a user is valid.

        A valid code confirms an authenticator app, and uses up a recovery code.
        """
        for method in self.for_user(sub, *kinds or ("totp", "recovery-code")):
            if method.type == "totp" and self.totp_matches(method, code):
                method.confirmed = True
                return True
            if method.type != "totp" and safe_equal(method.secret, code):
                self.remove(sub, method)
                return True
        return False


@dataclass(frozen=True)
class Ceremony:
    """A registration or a login with a passkey (Web Authentication, Level 3).

    Its methods raise an exception of ``PASSKEY_ERRORS`` if a response is invalid.
    """

    kind: str  # "create" or "get"
    name: str = ""  # of the new user
    email: str = ""
    challenge: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def options(self) -> dict[str, Any]:
        """The options for the browser's ``navigator.credentials``."""
        shared = {"challenge": self.challenge, "timeout": 60000}
        if self.kind == "get":
            return {**shared, "rpId": _RP_ID, "userVerification": "preferred"}
        name, user_id = self.email or self.name or "somebody", secrets.token_urlsafe(16)
        return {
            **shared,
            "rp": {"id": _RP_ID, "name": "Stand-in for Auth0"},
            "user": {"id": user_id, "name": name, "displayName": name},
            "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
            "authenticatorSelection": {"residentKey": "required"},
        }

    def public_key(self, credential: dict[str, Any]) -> str:
        """Return the public key of a new passkey."""
        self._check_client_data(credential)
        key: str = credential["response"]["publicKey"]  # as toJSON() writes it
        if not isinstance(load_der_public_key(_decode(key)), EllipticCurvePublicKey):
            raise ValueError("only ES256 is supported")
        return key

    def verify(self, credential: dict[str, Any], public_key: str) -> None:
        """Verify a passkey's signature."""
        client_data = self._check_client_data(credential)
        data = _decode(credential["response"]["authenticatorData"])
        if data[:32] != sha256(_RP_ID.encode()).digest():
            raise ValueError("it belongs to another site")
        key = cast(EllipticCurvePublicKey, load_der_public_key(_decode(public_key)))
        signature = _decode(credential["response"]["signature"])
        key.verify(signature, data + sha256(client_data).digest(), ECDSA(SHA256()))

    def _check_client_data(self, credential: dict[str, Any]) -> bytes:
        text = _decode(credential["response"]["clientDataJSON"])
        data = json.loads(text)
        if not safe_equal(self.challenge, data["challenge"]):
            raise ValueError("the challenge differs")
        if data["type"] != f"webauthn.{self.kind}" or not is_loopback(data["origin"]):
            raise ValueError("the type or the origin differs")
        return text


def barcode(method: Method, label: str) -> str:
    """Return the URI for the QR code that an authenticator app reads."""
    return _totp(method).get_provisioning_uri(label, "tenant")


def _totp(method: Method) -> TOTP:
    # RFC 6238 uses SHA-1, and some authenticator apps support nothing else.
    algorithm = SHA1()  # noqa: S303  # nosec B303
    return TOTP(base64.b32decode(method.secret), 6, algorithm, _TIME_STEP)


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def timestamp(seconds: float) -> str:
    """Return a time in RFC 3339 format."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()


def pkce_matches(verifier: str, challenge: str) -> bool:
    """Return whether a code_verifier matches its challenge (RFC 7636, 4.6)."""
    digest = base64.urlsafe_b64encode(sha256(verifier.encode()).digest())
    return safe_equal(challenge, digest.rstrip(b"=").decode())


def safe_equal(one: str, other: str) -> bool:
    """Compare two strings in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())
