"""How ID tokens and logout tokens are verified: the one private method we override."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import jwt
from auth0_server_python.error import BackchannelLogoutError
from flask import g, has_request_context

from .loops import network
from .one_loop import OneLoopClient

#: Seconds that the provider's clock and ours may differ by.
CLOCK_TOLERANCE = 60
#: Times a minute that keys are fetched for a token whose key is unknown.
_MOST_REFETCHES = 30
_VERIFIED = "_auth0_verified"  # in g: an ID token was, in this request


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

        The one private method of the SDK we override, since nothing public reaches
        what it decides: it allows the clocks no difference, does not require
        ``iat``, does not hold ``iss`` against the configured domain, and knows no
        key that is newer than ten minutes. The private names it needs are used here
        only.
        """
        kid = jwt.get_unverified_header(token).get("kid")
        if (key := _key_of(jwks, kid)) is None and self._may_refetch():
            self._forget_what_was_discovered()
            key = _key_of(await self._get_jwks_cached(self.settings.domain), kid)
        if key is None:
            raise jwt.InvalidTokenError("no key of the provider has this kid")
        claims: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWK.from_dict(key).key,
            algorithms=["RS256"],
            audience=audience,
            leeway=CLOCK_TOLERANCE,
            options={"require": ["iss", "aud", "exp", "iat"], "verify_iss": False},
        )
        ours = self._normalize_url(self.settings.domain)
        if self._normalize_url(claims["iss"]) != ours:
            raise jwt.InvalidIssuerError("issued by another domain than AUTH0_DOMAIN")
        if claims.get("azp", audience) != audience:
            raise jwt.InvalidAudienceError("issued to another client")
        if has_request_context():
            setattr(g, _VERIFIED, True)
        return claims

    def _may_refetch(self) -> bool:
        """Bound what a flood of tokens with made-up keys can make us fetch."""
        now = time.monotonic()
        while self._refetched_at and now - self._refetched_at[0] > 60:
            self._refetched_at.popleft()
        if len(self._refetched_at) >= _MOST_REFETCHES:
            return False
        self._refetched_at.append(now)
        return True

    def expect_verification(self) -> None:
        """Forget that a token was verified in this request."""
        g.pop(_VERIFIED, None)

    def was_verified(self) -> bool:
        """Tell whether a token was verified in this request since it was expected."""
        return bool(g.get(_VERIFIED, False))

    def _forget_what_was_discovered(self) -> None:
        """Fetch discovery and keys anew next time: the SDK keeps nonsense, too."""
        self._discovery_cache.clear()


def _key_of(jwks: Any, kid: Any) -> dict[str, Any] | None:
    """Find a key by its id (RFC 7517 section 4.5) in whatever the provider sent."""
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    for key in keys if isinstance(keys, list) else []:
        if isinstance(key, dict) and key.get("kid") == kid:
            return key
    return None
