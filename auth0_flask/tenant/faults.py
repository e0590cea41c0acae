"""Trouble to order: answers and tokens that are wrong on purpose."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from werkzeug.wrappers import Response

from . import keys

#: The endpoints that can go wrong.
PATHS = {
    "discovery": "/.well-known/openid-configuration",
    "jwks": "/.well-known/jwks.json",
    "token": "/oauth/token",
    "userinfo": "/userinfo",
    "par": "/oauth/par",
    "revoke": "/oauth/revoke",
    "api": "/api/things",
    "authorize": "/authorize",
}

# A fault answers a request, or returns None to have it answered as usual.
_Act = Callable[[dict[str, Any], threading.Event], Response | None]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one answer; made by the methods below."""

    act: _Act

    @staticmethod
    def status(code: int) -> Fault:
        """Answer with a bare status and a plain text body."""
        return Fault(lambda *_: Response(f"Fault {code}\n", status=code))

    @staticmethod
    def body(document: Mapping[str, Any], *, status: int = 200) -> Fault:
        """Answer with a JSON document of one's own."""
        text = json.dumps(document)
        return Fault(lambda *_: _json(text, status))

    @staticmethod
    def broken_json() -> Fault:
        """Answer 200 with JSON that ends too early."""
        return Fault(lambda *_: _json('{"broken": ', 200))

    @staticmethod
    def slow(seconds: float) -> Fault:
        """Answer as usual, but only after some seconds (or at stop)."""

        def wait(_: dict[str, Any], stopping: threading.Event) -> None:
            stopping.wait(seconds)

        return Fault(wait)

    @staticmethod
    def reset() -> Fault:
        """Cut the connection with a TCP reset, without an answer."""
        return Fault(_reset)


def _json(text: str, status: int) -> Response:
    return Response(text, status=status, mimetype="application/json")


def _reset(environ: dict[str, Any], _: threading.Event) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    # Lingering for zero seconds turns the close into a reset. The descriptor
    # itself goes when the handler closes its files, right after the error.
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()
    raise ConnectionResetError("reset on purpose")


@dataclass
class Draft:
    """A token about to be signed."""

    claims: dict[str, Any]
    kid: str | None
    key: RSAPrivateKey | EllipticCurvePrivateKey | str
    client_secret: str
    algorithm: str = "RS256"


@dataclass(frozen=True)
class Forgery:
    """What is to be wrong with one token; a claim forged as None is removed."""

    kind: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ValueError(f"No forgery {self.kind!r}; there are {known}.")

    def apply(self, draft: Draft) -> None:
        """Make the draft wrong."""
        if self.kind is not None:
            _KINDS[self.kind](draft)
        claims = {**draft.claims, **self.claims}
        forged_away = {n for n, value in self.claims.items() if value is None}
        draft.claims = {n: v for n, v in claims.items() if n not in forged_away}


def _expire(draft: Draft) -> None:
    # Old as a whole: issued ten hours before it ran out, as the genuine are, and
    # longer ago than a clock that is wrong could explain.
    shift = draft.claims["exp"] - draft.claims["iat"] + 2 * 86_400
    draft.claims["iat"] -= shift
    draft.claims["exp"] -= shift


_KINDS: dict[str, Callable[[Draft], object]] = {
    "signature": lambda d: vars(d).update(key=keys.stranger()),
    "issuer": lambda d: d.claims.update(iss="https://another-tenant.example/"),
    "audience": lambda d: d.claims.update(aud="another-client"),
    "algorithm": lambda d: vars(d).update(algorithm="HS256", key=d.client_secret),
    "curve": lambda d: vars(d).update(algorithm="ES256", key=keys.on_a_curve()),
    "none": lambda d: vars(d).update(algorithm="none", key=""),
    "expired": _expire,
    "unknown_key": lambda d: vars(d).update(key=keys.stranger(), kid=keys.new_kid()),
    "no_iat": lambda d: d.claims.pop("iat"),
    "no_kid": lambda d: vars(d).update(kid=None),
    "absent": lambda _: None,
}
