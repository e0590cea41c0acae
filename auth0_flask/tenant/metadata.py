"""The provider's description of itself (OpenID Connect Discovery, section 3)."""

from __future__ import annotations

from typing import Any

from auth0_flask.tenant import connection_tokens


def describe(issuer: str, origin: str, *, must_push: bool = False) -> dict[str, Any]:
    """Return the metadata document.

    Args:
        issuer: The TLS port's address, with a final slash.
        origin: The plain http port's, without: whatever a browser visits is
            there, since browsers do not trust the other port's certificate.
        must_push: Whether authorization requests have to be pushed.
    """
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{origin}/authorize",
        "end_session_endpoint": f"{origin}/oidc/logout",
        "token_endpoint": f"{issuer}oauth/token",
        "pushed_authorization_request_endpoint": f"{issuer}oauth/par",
        "require_pushed_authorization_requests": must_push,
        "userinfo_endpoint": f"{issuer}userinfo",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        **_SUPPORTED,
    }


_SUPPORTED = {
    "scopes_supported": [
        *("openid", "profile", "email", "address", "phone", "offline_access"),
    ],
    "response_types_supported": ["code"],
    "response_modes_supported": ["query"],
    "grant_types_supported": [
        *("authorization_code", "refresh_token", connection_tokens.GRANT_TYPE),
    ],
    "code_challenge_methods_supported": ["S256"],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "token_endpoint_auth_methods_supported": [
        *("client_secret_basic", "client_secret_post", "private_key_jwt"),
    ],
    "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
    "backchannel_logout_supported": True,
    "backchannel_logout_session_supported": True,
    "claims_supported": [
        *("aud", "auth_time", "email", "email_verified", "exp", "family_name"),
        *("given_name", "iat", "iss", "name", "nickname", "org_id", "org_name"),
        *("picture", "sid", "sub"),
    ],
}
