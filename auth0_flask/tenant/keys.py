"""The RSA keys that sign tokens, and their JWK Set."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm


def new_kid() -> str:
    """Return a random key identifier."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class SigningKey:
    """A private key and the ``kid`` of its tokens and its JWK."""

    private: rsa.RSAPrivateKey
    kid: str = field(default_factory=new_kid)

    def jwk(self) -> dict[str, Any]:
        """Return the public key as a JWK (RFC 7517) for RS256 signatures."""
        public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        return {**public, "use": "sig", "alg": "RS256", "kid": self.kid}


class SigningKeys:
    """The tenant's signing key."""

    def __init__(self) -> None:
        self.current = SigningKey(_shared_key())

    def rotate(self) -> None:
        """Replace the key by a new one with a new ``kid``."""
        self.current = SigningKey(_generate())

    def jwks(self) -> dict[str, Any]:
        """Return the JWK Set (RFC 7517, section 5), which has only the current key."""
        return {"keys": [self.current.jwk()]}


def _generate() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


# A 2048 bit key takes 0.1 s or more, so all tenants of a process share their first
# key, to make tests start fast. The other two are for forgeries and never published.
_shared_key = cache(_generate)
stranger = cache(lambda: _generate())
ec_key = cache(lambda: ec.generate_private_key(ec.SECP256R1()))
