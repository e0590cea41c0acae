"""What users prove who they are with, besides a password."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

_STEP = 30  # seconds that a one-time code is shown


@dataclass
class Method:
    """One way of a user's; ``secret`` is its key, code or address.

    Attributes:
        id: Its identifier.
        type: "totp", "recovery-code", "phone", "email" or "passkey".
        secret: What proves it.
        created_at: When it came, in the form of RFC 3339.
        confirmed: Whether it was shown to work.
        name: What its user calls it.
    """

    id: str
    type: str
    secret: str
    created_at: str
    confirmed: bool
    name: str = ""


class Methods:
    """The methods of all users, each under the user's ``sub``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with none; the clock gives seconds since 1970."""
        self._clock = clock
        self._of: dict[str, list[Method]] = {}

    def add(self, sub: str, kind: str, secret: str, *, confirmed: bool) -> Method:
        """Give a user a method."""
        name = f"{kind}|{secrets.token_urlsafe(12)}"
        now = datetime.fromtimestamp(int(self._clock()), UTC).isoformat()
        method = Method(name, kind, secret, now, confirmed)
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
        factors = self.of(sub, "totp", "phone", "email", "recovery-code")
        confirmed = [method for method in factors if method.confirmed]
        # A recovery code stands in for another factor and is none by itself.
        has = any(method.type != "recovery-code" for method in confirmed)
        return confirmed if has else []

    def remove(self, sub: str, method: Method) -> None:
        """Take a method from its user."""
        self._of[sub].remove(method)

    def code(self, method: Method, steps: int = 0) -> str:
        """Return what an authenticator shows now, or some steps of 30 s from now."""
        return _totp(method).generate(int(self._clock()) + steps * _STEP).decode()

    def takes_otp(self, sub: str, code: str) -> bool:
        """Whether one of a user's authenticators shows this code, which confirms it."""
        for method in self.of(sub, "totp"):
            if any(same(self.code(method, step), code) for step in (-1, 0, 1)):
                method.confirmed = True
                return True
        return False

    def takes_recovery_code(self, sub: str, code: str) -> bool:
        """Whether this is a user's recovery code; it is good once."""
        for method in self.of(sub, "recovery-code"):
            if same(method.secret, code):
                self.remove(sub, method)
                return True
        return False


def enrolment(method: Method, label: str) -> str:
    """Return the address in the QR code that an authenticator app reads."""
    return _totp(method).get_provisioning_uri(label, "tenant")


def _totp(method: Method) -> TOTP:
    # RFC 6238 has SHA-1, and some authenticator apps know nothing else.
    algorithm = SHA1()  # noqa: S303  # nosec B303
    return TOTP(base64.b32decode(method.secret), 6, algorithm, _STEP)


def same(one: str, other: str) -> bool:
    """Whether two texts are equal, in a time that tells nothing about them."""
    return hmac.compare_digest(one.encode(), other.encode())
