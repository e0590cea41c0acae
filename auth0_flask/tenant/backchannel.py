"""The endpoints an app's server talks to: metadata, keys, tokens, userinfo."""

from __future__ import annotations

from flask import Blueprint
from werkzeug.wrappers import Response

from auth0_flask.tenant.client_authentication import authenticate
from auth0_flask.tenant.grants import Grants
from auth0_flask.tenant.messages import (
    TokenError,
    bearer,
    parameters,
    private,
    public,
    refuse,
    required,
)
from auth0_flask.tenant.metadata import describe
from auth0_flask.tenant.provider import Provider
from auth0_flask.tenant.tokens import user_claims


class BackChannel:
    """The back channel's endpoints for one provider."""

    def __init__(self, provider: Provider) -> None:
        """Answer for this provider."""
        self._provider = provider
        self._grants = Grants(provider)

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
        routes.register_error_handler(TokenError, refuse)
        return routes

    def discovery(self) -> Response:
        """Describe the provider (OpenID Connect Discovery, section 3)."""
        provider = self._provider
        must_push = provider.require_pushed_authorization_requests
        return public(describe(provider.issuer, provider.origin, must_push=must_push))

    def jwks(self) -> Response:
        """Publish the signing key (RFC 7517, section 5)."""
        return public(self._provider.keys.jwks())

    def token(self) -> Response:
        """Exchange what the app shows for tokens (RFC 6749, section 3.2)."""
        form = parameters()
        authenticate(self._provider, form)
        return private(self._grants.exchange(form))

    def revoke(self) -> Response:
        """End a refresh token's family; unknown ones are fine (RFC 7009, 2.2)."""
        form = parameters()
        authenticate(self._provider, form)
        self._provider.directory.refresh_tokens.revoke(required(form, "token"))
        return Response(status=200)

    def userinfo(self) -> Response:
        """Tell the claims of a token's user (OpenID Connect Core, section 5.3)."""
        token = bearer()
        grant = self._provider.directory.access_tokens.get(token) if token else None
        if grant is None or "openid" not in grant.scope:
            return Response(
                "Unauthorized",
                status=401,
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        user = self._provider.directory.present(grant.session.user)
        return private(user_claims(user, grant))
