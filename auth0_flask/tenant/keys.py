"""The RSA keys that sign tokens, and their public half as a JWK Set."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    generate_private_key,
)
from jwt.algorithms import RSAAlgorithm


@dataclass(frozen=True)
class SigningKey:
    """A private key and the ``kid`` its tokens and its JWK carry."""

    private: RSAPrivateKey
    kid: str

    def jwk(self) -> dict[str, Any]:
        """Return the public half as a JWK (RFC 7517) for RS256 signatures."""
        public: dict[str, Any] = RSAAlgorithm.to_jwk(
            self.private.public_key(), as_dict=True
        )
        public.pop("key_ops", None)
        return {**public, "use": "sig", "alg": "RS256", "kid": self.kid}


class SigningKeys:
    """The tenant's one current signing key; thread-safe."""

    def __init__(self) -> None:
        """Start without a key; the first use makes it."""
        self._current: SigningKey | None = None
        self._lock = threading.Lock()

    @property
    def current(self) -> SigningKey:
        """The key that signs now."""
        with self._lock:
            if self._current is None:
                self._current = SigningKey(_first_key(), new_kid())
            return self._current

    def rotate(self) -> None:
        """Replace the key by a new one with a new ``kid``."""
        key = SigningKey(_generate(), new_kid())
        with self._lock:
            self._current = key

    def jwks(self) -> dict[str, Any]:
        """Return the JWK Set (RFC 7517, section 5) with the current key only."""
        return {"keys": [self.current.jwk()]}


def new_kid() -> str:
    """Return a random key identifier."""
    return secrets.token_urlsafe(16)


@cache
def stranger() -> RSAPrivateKey:
    """Return a key that no tenant in this process ever publishes."""
    return _generate()


@cache
def stranger_on_a_curve() -> ec.EllipticCurvePrivateKey:
    """Return the like for ES256, which the tenant never signs with."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def _first_key() -> RSAPrivateKey:
    # A 2048 bit key takes a tenth of a second or more: all tenants of one
    # process share the first, so that tests start fast.
    return _generate()


def _generate() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)
