"""Faults for tests: failing responses and invalid tokens."""

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

#: The endpoints that can fail.
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

# Responds to a request (a WSGI environ), or returns None for the usual response.
_Action = Callable[[dict[str, Any], threading.Event], Response | None]


@dataclass(frozen=True)
class Fault:
    """A fault of one response; use the methods below to make one."""

    act: _Action

    @staticmethod
    def status(code: int) -> Fault:
        """Respond with this status and a plain text body."""
        return Fault(lambda *_: Response(f"Fault {code}\n", status=code))

    @staticmethod
    def body(document: Mapping[str, Any], *, status: int = 200) -> Fault:
        """Respond with this JSON document."""
        text = json.dumps(document)
        return Fault(lambda *_: _json(text, status))

    @staticmethod
    def broken_json() -> Fault:
        """Respond with status 200 and truncated JSON."""
        return Fault(lambda *_: _json('{"broken": ', 200))

    @staticmethod
    def slow(seconds: float) -> Fault:
        """Respond as usual, but after some seconds or when the tenant stops."""

        def wait(_: dict[str, Any], stopping: threading.Event) -> None:
            stopping.wait(seconds)

        return Fault(wait)

    @staticmethod
    def reset() -> Fault:
        """Reset the TCP connection without a response."""
        return Fault(_reset)


def _json(text: str, status: int) -> Response:
    return Response(text, status=status, mimetype="application/json")


def _reset(environ: dict[str, Any], _: threading.Event) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    # SO_LINGER with 0 seconds makes close() send a reset. The descriptor itself is
    # closed when the handler closes its files, right after this error.
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()
    raise ConnectionResetError("reset on purpose")


@dataclass
class TokenDraft:
    """A token before it is signed."""

    claims: dict[str, Any]
    kid: str | None
    key: RSAPrivateKey | EllipticCurvePrivateKey | str
    client_secret: str
    algorithm: str = "RS256"


@dataclass(frozen=True)
class Forgery:
    """The changes that make one token invalid; None removes a claim."""

    kind: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ValueError(f"Unknown forgery {self.kind!r}; use one of {known}.")

    def apply(self, draft: TokenDraft) -> None:
        """Apply the changes to a draft."""
        if self.kind is not None:
            _KINDS[self.kind](draft)
        claims = {**draft.claims, **self.claims}
        removed = {n for n, value in self.claims.items() if value is None}
        draft.claims = {n: v for n, v in claims.items() if n not in removed}


def _expire(draft: TokenDraft) -> None:
    # Move both times, to keep the usual lifetime, and by more than two days, which
    # exceeds any tolerance for wrong clocks.
    shift = draft.claims["exp"] - draft.claims["iat"] + 2 * 86_400
    draft.claims["iat"] -= shift
    draft.claims["exp"] -= shift


_KINDS: dict[str, Callable[[TokenDraft], object]] = {
    "signature": lambda d: vars(d).update(key=keys.stranger()),
    "issuer": lambda d: d.claims.update(iss="https://another-tenant.example/"),
    "audience": lambda d: d.claims.update(aud="another-client"),
    "algorithm": lambda d: vars(d).update(algorithm="HS256", key=d.client_secret),
    "curve": lambda d: vars(d).update(algorithm="ES256", key=keys.ec_key()),
    "none": lambda d: vars(d).update(algorithm="none", key=""),
    "expired": _expire,
    "unknown_key": lambda d: vars(d).update(key=keys.stranger(), kid=keys.new_kid()),
    "no_iat": lambda d: d.claims.pop("iat"),
    "no_kid": lambda d: vars(d).update(kid=None),
    "absent": lambda _: None,
}
