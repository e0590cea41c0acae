"""How ID tokens and logout tokens are verified: the one private method we override."""

from __future__ import annotations

import hmac
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import jwt
from auth0_server_python.error import ApiError, BackchannelLogoutError
from flask import has_request_context

from .errors import ClocksDiffer
from .loops import network
from .one_loop import OneLoopClient

#: Seconds that the provider's clock and ours may differ by.
CLOCK_TOLERANCE = 60
#: Times a minute that keys are fetched for a token whose key is unknown.
_MOST_REFETCHES = 30
#: Seconds that a clock may be wrong by at most; what is older is simply old.
_MOST_APART = 86_400
_VERIFIED = "_auth0_verified"  # in the notes: an ID token was, in this request
#: In the notes: what the next ID token of this request must carry.
_NONCE = "_auth0_nonce"


def is_fresh(user: Mapping[str, Any], max_age: float) -> bool:
    """Tell whether somebody proved who they are that many seconds ago at most.

    OpenID Connect Core section 3.1.3.7, step 13; clocks may differ.
    """
    auth_time = user.get("auth_time")
    if not isinstance(auth_time, int | float):
        return False
    return time.time() - auth_time <= max_age + CLOCK_TOLERANCE


class VerifyingClient(OneLoopClient):
    """Verifies tokens strictly, and with the provider's newest keys."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._refetched_at: deque[float] = deque()

    async def verify_logout_token(self, logout_token: str) -> dict[str, Any]:
        """Verify the signature and the common claims of a logout token.

        OpenID Connect Back-Channel Logout 1.0 section 2.6, steps 2 to 4.

        Raises:
            BackchannelLogoutError: Its ``typ`` is another token's.
            InvalidTokenError: Of PyJWT: it does not hold.
        """
        self.require_setup()
        typ = jwt.get_unverified_header(logout_token).get("typ")
        if typ is not None and str(typ).lower() != "logout+jwt":
            raise BackchannelLogoutError("The token is of another type.")
        return await network.run(self._verified(logout_token))

    async def _verified(self, token: str) -> dict[str, Any]:
        jwks = await self._get_jwks_cached(self.settings.domain)
        return await self._verify_and_decode_jwt(token, jwks, self.settings.client_id)

    async def _verify_and_decode_jwt(
        self, token: str, jwks: dict[str, Any], audience: str | None = None
    ) -> dict[str, Any]:
        """Verify an ID token or logout token (OpenID Connect Core section 3.1.3.7).

        A private method of the SDK, overridden since nothing public reaches what it
        decides: it allows the clocks no difference, does not require
        ``iat``, does not hold ``iss`` against the configured domain, knows no key
        that is newer than ten minutes, and no nonce. The private names it needs are
        used here only.
        """
        claims = _decode(token, await self._key_for(token, jwks), audience)
        if not self._is_our_issuer(claims["iss"]):
            raise jwt.InvalidIssuerError("issued by another domain than AUTH0_DOMAIN")
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else audience) != audience:
            raise jwt.InvalidAudienceError("issued to another client")
        if has_request_context():
            notes = self.sessions.notes()
            _check_nonce(claims, notes.pop(_NONCE, None))
            notes[_VERIFIED] = True
        return claims

    async def _key_for(self, token: str, jwks: Any) -> jwt.PyJWK:
        kid = jwt.get_unverified_header(token).get("kid")
        if (key := _key_of(jwks, kid)) is None and self._may_refetch():
            self._forget_what_was_discovered()
            key = _key_of(await self._get_jwks_cached(self.settings.domain), kid)
        if key is None:
            raise jwt.InvalidTokenError("it is not clear which key has signed this")
        return key

    async def _get_oidc_metadata_cached(self, domain: str) -> dict[str, Any]:
        """Hold the issuer that is discovered against the configured domain.

        All of the SDK asks here before it sends anything to where that says (OpenID
        Connect Discovery section 4.3), so this is overridden, too.

        Raises:
            ApiError: It is another's.
        """
        found = await super()._get_oidc_metadata_cached(domain)
        if not isinstance(found, dict) or not self._is_our_issuer(found.get("issuer")):
            self._forget_what_was_discovered()
            raise ApiError("metadata_error", "discovery is of another issuer")
        return found

    def _is_our_issuer(self, issuer: object) -> bool:
        ours = f"https://{self.settings.domain}"
        return isinstance(issuer, str) and issuer.removesuffix("/") == ours

    def _may_refetch(self) -> bool:
        """Bound what a flood of tokens with made-up keys can make us fetch."""
        now = time.monotonic()
        while self._refetched_at and now - self._refetched_at[0] > 60:
            self._refetched_at.popleft()
        if len(self._refetched_at) >= _MOST_REFETCHES:
            return False
        self._refetched_at.append(now)
        return True

    def expect_verification(self, nonce: str | None = None) -> None:
        """Forget that a token was verified in this request.

        Args:
            nonce: What the next ID token must carry, if that was sent.
        """
        notes = self.sessions.notes()
        notes.pop(_VERIFIED, None)
        notes[_NONCE] = nonce

    def was_verified(self) -> bool:
        """Tell whether a token was verified in this request since it was expected."""
        return bool(self.sessions.notes().get(_VERIFIED, False))

    def _forget_what_was_discovered(self) -> None:
        """Fetch discovery and keys anew next time: the SDK keeps nonsense, too."""
        self._discovery_cache.clear()


def _decode(token: str, key: jwt.PyJWK, audience: str | None) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=["RS256"],
            audience=audience,
            leeway=CLOCK_TOLERANCE,
            options={"require": ["iss", "aud", "exp", "iat"], "verify_iss": False},
        )
    except (jwt.ImmatureSignatureError, jwt.ExpiredSignatureError) as error:
        # by then the signature was found to hold
        found = jwt.decode(token, options={"verify_signature": False})
        ahead = round(float(found["iat"]) - time.time())
        if CLOCK_TOLERANCE < abs(ahead) <= _MOST_APART:
            raise ClocksDiffer(ahead) from error
        raise
    return claims


def _check_nonce(claims: dict[str, Any], expected: str | None) -> None:
    """Hold a nonce against the one sent (OpenID Connect Core 3.1.3.7, step 11).

    It has done its work then, and no session needs to keep it.
    """
    if expected is None:
        return
    given = claims.pop("nonce", None)
    if not isinstance(given, str) or not hmac.compare_digest(
        given.encode(errors="replace"), expected.encode()
    ):
        raise jwt.InvalidTokenError("issued for another login: its nonce differs")


def _key_of(jwks: Any, kid: str | None) -> jwt.PyJWK | None:
    """Find a key by its id (RFC 7517 section 4.5) in whatever the provider sent.

    Keys that cannot verify are passed over (section 5). A token without an id is
    taken where there is no choice (OpenID Connect Core section 10.1).
    """
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    named = [
        key
        for key in (keys if isinstance(keys, list) else [])
        if isinstance(key, dict) and (kid is None or key.get("kid") == kid)
    ]
    usable = [key for key in map(_usable, named) if key is not None]
    return usable[0] if len(usable) == 1 else None


def _usable(key: dict[str, Any]) -> jwt.PyJWK | None:
    if key.get("kty") != "RSA" or key.get("use", "sig") != "sig":
        return None
    if key.get("alg", "RS256") != "RS256":
        return None
    try:
        return jwt.PyJWK.from_dict(key, algorithm="RS256")
    except jwt.PyJWTError:
        return None
