"""Auth0 login for Flask: copy this file into your app; it is yours to change."""

from functools import partial

import auth0_flask
from auth0_flask import (
    Auth0Client,
    LoginError,
    LoginRefused,
    Settings,
    auth_user,
    create_blueprint,
    login_as,
    login_failed,
    login_options,
    login_required,
    login_silently,
    logout_options,
    passive,
    prefers_json,
    problem,
    public,
    receive_logout_token,
    refuse_cross_site,
    requires_claim,
    return_to,
    session_revoked,
    signed_out,
    tokens_refreshed,
    user_logged_in,
    user_logged_out,
)
from auth0_flask.stores import (
    FlaskSessionStateStore,
    FlaskSessionTransactionStore,
    Lifetime,
)

# fmt: off
__all__ = [
    "LoginError", "LoginRefused", "auth0", "auth_user", "init_app", "login_as",
    "login_failed", "login_options", "login_required", "login_silently",
    "logout_options", "passive", "prefers_json", "problem", "public",
    "receive_logout_token", "refuse_cross_site", "requires_claim", "return_to",
    "routes", "session_revoked", "settings", "signed_out", "tokens_refreshed",
    "user_logged_in", "user_logged_out",
]
# fmt: on

# From the environment and .env; or write Settings(domain=..., client_id=..., ...).
settings = Settings.from_environment()

auth0 = Auth0Client(
    settings,
    state_store=FlaskSessionStateStore(
        secrets=settings.secrets,
        scope=settings.scope,
        keep_id_token=settings.keep_id_token,
        lifetime=Lifetime(
            domain=settings.domain,
            idle_seconds=settings.session_idle_seconds,
            max_seconds=settings.session_max_seconds,
        ),
    ),
    transaction_store=FlaskSessionTransactionStore(secrets=settings.secrets),
)

# auth.init_app(app), where the app is made.
init_app = partial(auth0_flask.init_app, client=auth0)

# app.register_blueprint(auth.routes): /login, /callback, /logout and two more.
routes = create_blueprint()
