"""ID tokens and logout tokens made wrong on purpose, one way at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from auth0_flask.tenant import keys


@dataclass
class Draft:
    """A token about to be signed; ``header`` goes into its header."""

    claims: dict[str, Any]
    kid: str | None
    key: RSAPrivateKey | EllipticCurvePrivateKey | str
    client_secret: str
    algorithm: str = "RS256"
    header: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Forgery:
    """What is to be wrong with one token."""

    kind: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a kind that nobody knows.

        Raises:
            ValueError: If there is no such kind.
        """
        if self.kind is not None and self.kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ValueError(f"No forgery {self.kind!r}; there are {known}.")

    @property
    def absent(self) -> bool:
        """Whether there is to be no ID token at all."""
        return self.kind == "absent"

    def apply(self, draft: Draft) -> None:
        """Change the draft; a claim forged as None is removed."""
        if self.kind is not None:
            _KINDS[self.kind](draft)
        draft.claims.update(self.claims)
        for name in [n for n, value in self.claims.items() if value is None]:
            del draft.claims[name]


class Forgeries:
    """Forgeries in waiting, each for one ID token, in order; thread-safe."""

    def __init__(self) -> None:
        """Start with none: all ID tokens are right."""
        self._waiting: deque[Forgery] = deque()
        self._lock = threading.Lock()

    def add(self, kind: str | None, claims: Mapping[str, Any] | None) -> None:
        """Queue one forgery.

        Raises:
            ValueError: If the kind is unknown, or there is nothing to forge.
        """
        if kind is None and not claims:
            raise ValueError("Say what to forge: a kind or claims.")
        forgery = Forgery(kind, dict(claims or {}))
        with self._lock:
            self._waiting.append(forgery)

    def take(self) -> Forgery:
        """Return the next forgery, or one that changes nothing."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else Forgery()

    def clear(self) -> None:
        """Forget all forgeries still in waiting."""
        with self._lock:
            self._waiting.clear()


def _signature(draft: Draft) -> None:
    draft.key = keys.stranger()


def _unknown_key(draft: Draft) -> None:
    draft.key, draft.kid = keys.stranger(), keys.new_kid()


def _algorithm(draft: Draft) -> None:
    draft.algorithm, draft.key = "HS256", draft.client_secret


def _curve(draft: Draft) -> None:
    draft.algorithm, draft.key = "ES256", keys.stranger_on_a_curve()


def _none(draft: Draft) -> None:
    draft.algorithm, draft.key = "none", ""


def _issuer(draft: Draft) -> None:
    draft.claims["iss"] = "https://another-tenant.example/"


def _audience(draft: Draft) -> None:
    draft.claims["aud"] = "another-client"


def _expired(draft: Draft) -> None:
    # Old as a whole: issued ten hours before it ran out, as the genuine are, and
    # longer ago than a clock that is wrong could explain.
    shift = draft.claims["exp"] - draft.claims["iat"] + 2 * 86_400
    draft.claims["iat"] -= shift
    draft.claims["exp"] -= shift


def _no_iat(draft: Draft) -> None:
    del draft.claims["iat"]


def _no_kid(draft: Draft) -> None:
    draft.kid = None


def _absent(_: Draft) -> None:
    """Change nothing: the token is left out of the answer."""


_KINDS: dict[str, Callable[[Draft], None]] = {
    "signature": _signature,
    "issuer": _issuer,
    "audience": _audience,
    "algorithm": _algorithm,
    "curve": _curve,
    "none": _none,
    "expired": _expired,
    "unknown_key": _unknown_key,
    "no_iat": _no_iat,
    "no_kid": _no_kid,
    "absent": _absent,
}
