"""The grants that the token endpoint takes."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from auth0_flask.tenant import mfa
from auth0_flask.tenant.factors import same
from auth0_flask.tenant.messages import (
    TokenError,
    invalid_grant,
    invalid_request,
    required,
)
from auth0_flask.tenant.provider import Provider
from auth0_flask.tenant.tokens import issue, token_response
from auth0_flask.tenant.users import Grant, PendingCode

#: Access tokens of the services that users signed in through (Token Vault).
CONNECTION_GRANT = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)

# RFC 8693, section 3, names the first; the second is Auth0's own.
_REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"  # noqa: S105  # a name
_CONNECTION_TOKEN = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"  # noqa: S105  # another
)
_CONNECTION_LIFETIME = 3600


class Grants:
    """What becomes of a code, a refresh token or a connection's name."""

    def __init__(self, provider: Provider) -> None:
        """Grant what this provider's users let the app have."""
        self._provider = provider
        self._by_type = {
            "authorization_code": self._redeem_code,
            "refresh_token": self._refresh,
            CONNECTION_GRANT: self._connection_token,
            "http://auth0.com/oauth/grant-type/mfa-otp": mfa.verify_otp,
            "http://auth0.com/oauth/grant-type/mfa-recovery-code": (
                mfa.verify_recovery_code
            ),
        }

    def exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer to a token request.

        Raises:
            TokenError: If it is refused.
        """
        grant_type = required(form, "grant_type")
        if grant_type not in self._by_type:
            raise TokenError(
                400, "unsupported_grant_type", f"Unsupported grant type: {grant_type}"
            )
        extra = self._provider.token_response_extra
        answer = {**self._by_type[grant_type](form), **extra}
        return {name: value for name, value in answer.items() if value is not None}

    def _redeem_code(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Exchange a code (RFC 6749, section 4.1.3)."""
        pending = self._provider.directory.codes.take(required(form, "code"))
        if pending is None:
            raise invalid_grant("Invalid authorization code")
        _check_proof(pending, form)
        return issue(self._provider, self._present(pending.grant))

    def _refresh(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Exchange a refresh token (RFC 6749, section 6)."""
        old = required(form, "refresh_token")
        grant = self._provider.directory.refresh_tokens.grant(old) or _unknown()
        # What is refused below uses no token up: the app may well come again.
        self._check_audience(form.get("audience"))
        # The nonce belongs to the login alone (OpenID Connect Core, 12.2).
        grant = _narrowed(replace(self._present(grant), nonce=None), form)
        mfa.demand(self._provider, grant, old)
        return token_response(self._provider, grant, self._successor(old))

    def _connection_token(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Exchange a refresh token for a token of a connection; it stays good."""
        _check_connection_request(form, self._provider.connections)
        token = form["subject_token"]
        if self._provider.directory.refresh_tokens.grant(token) is None:
            _unknown()
        return _connection_answer(form["connection"])

    def _check_audience(self, audience: str | None) -> None:
        if audience and not self._provider.knows_audience(audience):
            raise TokenError(403, "access_denied", f"Service not found: {audience}")

    def _successor(self, token: str) -> str | None:
        if not self._provider.rotate_refresh_tokens:
            return None
        # Of two requests with one token, both got this far: only one goes on.
        return self._provider.directory.refresh_tokens.rotate(token) or _unknown()

    def _present(self, grant: Grant) -> Grant:
        user = self._provider.directory.present(grant.session.user)
        return replace(grant, session=replace(grant.session, user=user))


def _unknown() -> NoReturn:
    raise invalid_grant("Unknown or invalid refresh token.")


def _check_proof(pending: PendingCode, form: Mapping[str, str]) -> None:
    """Check what only the app that began the login has (RFC 7636, section 4.6)."""
    if not same(pending.redirect_uri, form.get("redirect_uri", "")):
        raise invalid_grant("The redirect_uri is not that of the authorization request")
    verifier = form.get("code_verifier", "").encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest())
    if not same(pending.code_challenge, digest.rstrip(b"=").decode()):
        raise invalid_grant("Failed to verify code verifier")


def _narrowed(grant: Grant, form: Mapping[str, str]) -> Grant:
    """Return the grant for the scope and audience asked for (RFC 6749, section 6)."""
    asked = form.get("scope", "").split() or grant.scope
    return replace(
        grant,
        scope=tuple(scope for scope in grant.scope if scope in asked),
        audience=form.get("audience") or grant.audience,
    )


def _check_connection_request(
    form: Mapping[str, str], connections: Collection[str]
) -> None:
    """Check a request but for the refresh token that it shows.

    Raises:
        TokenError: If something is missing or wrong.
    """
    required(form, "subject_token")
    if required(form, "subject_token_type") != _REFRESH_TOKEN:
        raise invalid_request("The subject token has to be a refresh token")
    if required(form, "requested_token_type") != _CONNECTION_TOKEN:
        raise invalid_request("There are only access tokens of connections to ask for")
    if required(form, "connection") not in connections:
        raise invalid_request("the connection was not found")


def _connection_answer(connection: str) -> dict[str, Any]:
    """Return the answer, in the form of RFC 8693, section 2.2.1."""
    return {
        "access_token": f"{connection}-token-{secrets.token_urlsafe(16)}",
        "issued_token_type": _CONNECTION_TOKEN,
        "token_type": "Bearer",
        "expires_in": _CONNECTION_LIFETIME,
        "scope": "openid profile email",
    }
