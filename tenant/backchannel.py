"""The endpoints an app's server talks to: metadata, keys, tokens, userinfo."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Blueprint, jsonify, request
from werkzeug.wrappers import Response

from tenant.directory import Grant, PendingCode
from tenant.metadata import describe
from tenant.provider import Provider
from tenant.tokens import token_response, user_claims


class TokenError(Exception):
    """A refusal in the form of RFC 6749, section 5.2."""

    def __init__(self, status: int, error: str, description: str) -> None:
        """Take the HTTP status, the error code and a sentence about it."""
        super().__init__(description)
        self.status = status
        self.document = {"error": error, "error_description": description}


class BackChannel:
    """The back channel's endpoints for one provider."""

    def __init__(self, provider: Provider) -> None:
        """Answer for this provider."""
        self._provider = provider
        self._grants = {
            "authorization_code": self._redeem_code,
            "refresh_token": self._refresh,
        }

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("backchannel", __name__)
        well_known = "/.well-known"
        routes.add_url_rule(
            f"{well_known}/openid-configuration", view_func=self.discovery
        )
        routes.add_url_rule(f"{well_known}/jwks.json", view_func=self.jwks)
        routes.add_url_rule("/oauth/token", view_func=self.token, methods=["POST"])
        routes.add_url_rule("/oauth/revoke", view_func=self.revoke, methods=["POST"])
        routes.add_url_rule(
            "/userinfo", view_func=self.userinfo, methods=["GET", "POST"]
        )
        routes.register_error_handler(TokenError, _refuse)
        return routes

    def discovery(self) -> Response:
        """Describe the provider (OpenID Connect Discovery, section 3)."""
        return _public(describe(self._provider.issuer, self._provider.origin))

    def jwks(self) -> Response:
        """Publish the signing key (RFC 7517, section 5)."""
        return _public(self._provider.keys.jwks())

    def token(self) -> Response:
        """Exchange a code or a refresh token (RFC 6749, sections 4.1.3 and 6)."""
        form = _parameters()
        self._authenticate(form)
        grant_type = _required(form, "grant_type")
        if grant_type not in self._grants:
            raise TokenError(
                400, "unsupported_grant_type", f"Unsupported grant type: {grant_type}"
            )
        return _private(self._grants[grant_type](form))

    def revoke(self) -> Response:
        """Forget a refresh token; unknown ones are fine (RFC 7009, section 2.2)."""
        form = _parameters()
        self._authenticate(form)
        self._provider.directory.refresh_tokens.take(_required(form, "token"))
        return Response(status=200)

    def userinfo(self) -> Response:
        """Tell the claims of a token's user (OpenID Connect Core, section 5.3)."""
        token = _bearer()
        grant = self._provider.directory.access_tokens.get(token) if token else None
        if grant is None or "openid" not in grant.scope:
            return Response(
                "Unauthorized",
                status=401,
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        user = self._provider.directory.present(grant.session.user)
        return _private(user_claims(user, grant.scope))

    def _authenticate(self, form: Mapping[str, str]) -> None:
        """Check the client's secret (RFC 6749, section 2.3.1)."""
        basic = request.authorization
        shown = (form.get("client_id"), form.get("client_secret"))
        if basic is not None and basic.type == "basic":
            shown = (basic.username, basic.password)
        known = (self._provider.client_id, self._provider.client_secret)
        # Both are compared, so that the time taken tells nothing about either.
        matches = [
            _same(ours, theirs or "") for ours, theirs in zip(known, shown, strict=True)
        ]
        if not all(matches):
            raise TokenError(401, "access_denied", "Unauthorized")

    def _redeem_code(self, form: Mapping[str, str]) -> dict[str, Any]:
        pending = self._provider.directory.codes.take(_required(form, "code"))
        if pending is None:
            raise _invalid_grant("Invalid authorization code")
        _check_proof(pending, form)
        grant = self._present(pending.grant)
        offline = "offline_access" in grant.scope
        return token_response(
            self._provider, grant, self._keep(grant) if offline else None
        )

    def _refresh(self, form: Mapping[str, str]) -> dict[str, Any]:
        old = _required(form, "refresh_token")
        grant = self._provider.directory.refresh_tokens.take(old)
        if grant is None:
            raise _invalid_grant("Unknown or invalid refresh token.")
        # The nonce belongs to the login alone (OpenID Connect Core, 12.2).
        grant = replace(self._present(grant), nonce=None)
        return token_response(self._provider, _narrowed(grant, form), self._keep(grant))

    def _keep(self, grant: Grant) -> str:
        return self._provider.directory.refresh_tokens.put(grant)

    def _present(self, grant: Grant) -> Grant:
        user = self._provider.directory.present(grant.session.user)
        return replace(grant, session=replace(grant.session, user=user))


def _check_proof(pending: PendingCode, form: Mapping[str, str]) -> None:
    """Check what only the app that began the login has (RFC 7636, section 4.6)."""
    if not _same(pending.redirect_uri, form.get("redirect_uri", "")):
        raise _invalid_grant(
            "The redirect_uri is not that of the authorization request"
        )
    verifier = form.get("code_verifier", "").encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest())
    if not _same(pending.code_challenge, digest.rstrip(b"=").decode()):
        raise _invalid_grant("Failed to verify code verifier")


def _narrowed(grant: Grant, form: Mapping[str, str]) -> Grant:
    """Return the grant for the scope and audience asked for (RFC 6749, section 6)."""
    asked = form.get("scope", "").split() or grant.scope
    return replace(
        grant,
        scope=tuple(scope for scope in grant.scope if scope in asked),
        audience=form.get("audience") or grant.audience,
    )


def _parameters() -> dict[str, str]:
    # Auth0 takes JSON as well as the form of RFC 6749.
    if not request.is_json:
        return request.form.to_dict()
    document = request.get_json(silent=True)
    if not isinstance(document, dict):
        raise TokenError(400, "invalid_request", "The body is not a JSON object")
    return {name: str(value) for name, value in document.items()}


def _required(form: Mapping[str, str], name: str) -> str:
    if not form.get(name):
        raise TokenError(400, "invalid_request", f"Missing required parameter: {name}")
    return form[name]


def _bearer() -> str:
    """Return the token from where RFC 6750, sections 2.1 and 2.2, put it."""
    header = request.authorization
    if header is not None and header.type == "bearer":
        return header.token or ""
    return request.form.get("access_token", "")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _invalid_grant(description: str) -> TokenError:
    return TokenError(403, "invalid_grant", description)


def _refuse(error: TokenError) -> Response:
    answer = _private(error.document)
    answer.status_code = error.status
    if error.status == 401 and request.authorization is not None:
        answer.headers["WWW-Authenticate"] = 'Basic realm="tenant"'
    return answer


def _private(document: Mapping[str, Any]) -> Response:
    answer = jsonify(document)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _public(document: Mapping[str, Any]) -> Response:
    answer = jsonify(document)
    answer.headers["Cache-Control"] = "public, max-age=15"
    return answer
