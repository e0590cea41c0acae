"""A small app with login, profile and logout through Auth0: its routes and pages."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
from auth0_server_python.auth_types import ConnectAccountOptions
from auth0_server_python.error import AccessTokenError
from flask import (
    Flask,
    current_app,
    json,
    jsonify,
    redirect,
    render_template,
    request,
)
from flask.cli import cli
from werkzeug.exceptions import (
    BadGateway,
    BadHost,
    HTTPException,
)
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

import auth
import languages
from auth import auth0
from auth0_flask import SetupError
from auth0_flask.errors import login_error
from auth0_flask.event_loops import reuse_event_loops
from auth0_flask.verification import http_options
from languages import translated

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_HERE_ONLY = "signed_out_here_only"  # a cookie for the next page, see _marker
_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; img-src 'self' https:; "
        f"form-action 'self' {auth0.settings.browser_origins}; "
        "base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
)
_UNSTORED = (*_HEADERS, ("Cache-Control", "no-store"))
#: Claims that are times, as seconds since 1970 or in ISO 8601.
_TIMES = {"auth_time", "exp", "iat", "nbf", "session_expiry", "updated_at"}
_OWNERS = {
    "apple": "Apple",
    "facebook": "Facebook",
    "github": "GitHub",
    "google-oauth2": "Google",
    "linkedin": "LinkedIn",
    "windowslive": "Microsoft",
}


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Build the app.

    Args:
        config: Flask's own settings, which win over those in the environment
            (``FLASK_SESSION_COOKIE_DOMAIN`` and the like) and over those made here.

    Raises:
        SetupError: Settings in the environment are missing or wrong.
    """
    app = Flask(__name__)
    _configure(app, config or {})
    app.json.ensure_ascii = False  # type: ignore[attr-defined]  # of Flask's own provider
    app.async_to_sync = reuse_event_loops  # type: ignore  # Flask's documented seam
    auth.init_app(app)
    app.register_error_handler(HTTPException, _error_page)
    app.wsgi_app = _with_headers(app.wsgi_app)  # type: ignore[assignment]  # as Flask shows it
    languages.init_app(app)
    _add_login(app)
    _add_pages(app)
    _add_apis(app)
    return app


def _add_login(app: Flask) -> None:
    @app.get("/login")
    async def login() -> Response:
        options = languages.at_auth0(auth.login_options())
        return redirect(await auth0.start_interactive_login(options))

    @app.get("/callback")
    async def callback() -> Response:
        result = await auth0.complete_interactive_login(request.url)
        return redirect(auth.return_to(result))

    @app.get("/logout")
    async def logout() -> Response:
        at_auth0 = await auth0.logout(auth.logout_options())
        stays = "here" in request.args  # of this app only; Auth0 still has a session
        away = redirect(languages.link("home") if stays else at_auth0)
        if auth0.logout_incomplete():
            _mark_as_here_only(away)
        return away

    @app.post("/logout/everywhere")
    async def logout_everywhere() -> Response:
        auth.refuse_cross_site()
        await auth0.logout_everywhere()
        return redirect(await auth0.logout(auth.logout_options()), 303)

    @app.post("/backchannel-logout")
    async def backchannel_logout() -> Response:
        return await auth.receive_logout_token()


def _add_pages(app: Flask) -> None:
    @app.get("/")
    def home() -> str:  # it awaits nothing, and a sync view is faster
        state = auth0.load_session() or {}
        return render_template(
            "home.html",
            user=state.get("user"),
            connections=_connections(),
            here_only=_marker() in request.cookies,
        )

    @app.get("/profile")
    @auth.login_required
    async def profile() -> str:
        state = auth0.read_session() or {}
        return render_template(
            "profile.html",
            user=state["user"],
            claims=[(n, v, _time_in(n, v)) for n, v in state["user"].items()],
            session=_times(state),
            dumps=json.dumps,
            everywhere=current_app.extensions["auth0"].shared_store.remembers,
            devices=[
                (device, _moment(device.created_at), _moment(device.used_at))
                for device in await auth0.sessions_of(state["user"]["sub"])
            ],
            this_device=state["session"]["id"],
            has_accounts=bool(state.get("refresh_token")),
        )

    @app.post("/devices/end")
    @auth.login_required(max_age=300)
    async def end_devices() -> Response:
        auth.refuse_cross_site()
        state, wanted = auth0.read_session() or {}, request.form.get("id")
        ids = [device.id for device in await auth0.sessions_of(state["user"]["sub"])]
        if wanted is None:  # all others
            ended = [each for each in ids if each != state["session"]["id"]]
        else:
            ended = [wanted] if wanted in ids else []
        await auth0.end_session(*ended)
        return redirect(languages.link("profile"), 303)

    @app.get("/accounts")
    @auth.login_required
    async def accounts() -> str:
        found = (await auth0.list_connected_accounts()).accounts
        more = (await auth0.list_connected_account_connections()).connections
        names = {connection.name for connection in more}
        return render_template(
            "accounts.html",
            accounts=[(account.id, _owner(account.connection)) for account in found],
            connections=[(name, _owner(name)) for name in sorted(names)],
        )

    @app.post("/accounts")
    @auth.login_required
    async def change_accounts() -> Response:
        auth.refuse_cross_site()
        here = languages.link("accounts")
        if connection := request.form.get("connect"):
            asked = ConnectAccountOptions(
                connection=connection, app_state={"return_to": here}
            )
            return redirect(await auth0.start_connect_account(asked), 303)
        await auth0.delete_connected_account(request.form.get("remove", ""))
        return redirect(here, 303)

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"


def _add_apis(app: Flask) -> None:
    @app.get("/api/me")
    async def me() -> Response:
        user = await auth0.get_user()
        if user is None:
            return auth.problem(auth.signed_out())
        return jsonify(user)

    @app.get("/api/userinfo")
    async def userinfo() -> Response:
        user = await auth0.get_user()
        if user is None:
            return auth.problem(auth.signed_out())
        try:
            token = await auth0.get_access_token()
            return jsonify(await _userinfo(token, user["sub"]))
        except AccessTokenError:
            return auth.problem(auth.signed_out())
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            found = login_error(error, doing="Asking for userinfo")
            return auth.problem(found or BadGateway())


async def _userinfo(access_token: str, sub: str) -> dict[str, Any]:
    """Ask Auth0 about the user of an access token (OpenID Connect Core section 5.3).

    Raises:
        ValueError: The answer is no JSON, or another user's (section 5.3.2).
    """
    url = f"https://{auth0.settings.domain}/userinfo"
    authorization = {"Authorization": f"Bearer {access_token}"}
    async with asyncio.timeout(8), httpx.AsyncClient(**http_options()) as http:
        answer = await http.get(url, headers=authorization)
    claims = answer.raise_for_status().json()
    if not isinstance(claims, dict) or claims.get("sub") != sub:
        raise ValueError("The answer of userinfo is another user's.")
    return claims


def _connections() -> list[tuple[str, str]]:
    """Return each connection and the name that people know its provider by."""
    return [(name, _owner(name)) for name in auth0.settings.connections]


def _owner(connection: str) -> str:
    return _OWNERS.get(connection, connection.replace("-", " ").title())


def _configure(app: Flask, config: Mapping[str, Any]) -> None:
    app.config.from_prefixed_env()
    app.config.from_mapping(config)
    if proxies := _trusted_proxies():
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # as Flask shows it
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )


def _trusted_proxies() -> int:
    given = os.environ.get("TRUSTED_PROXIES") or "0"
    if given.isdecimal():
        return int(given)
    raise SetupError(
        ("TRUSTED_PROXIES is not a number: set how many proxies stand in front.",)
    )


def _mark_as_here_only(response: Response) -> None:
    secure = bool(current_app.config["SESSION_COOKIE_SECURE"])
    response.set_cookie(
        _marker(), "1", max_age=60, secure=secure, httponly=True, samesite="Lax"
    )


def _marker() -> str:
    """Return the name of that cookie; its path is always ``/``."""
    secure = current_app.config["SESSION_COOKIE_SECURE"]
    return f"__Host-{_HERE_ONLY}" if secure else _HERE_ONLY


def _with_headers(answer: WSGIApplication) -> WSGIApplication:
    """Add the headers of every response; outside Flask, which costs the least."""

    def call(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            added = _HEADERS if "Cache-Control" in dict(headers) else _UNSTORED
            return start_response(status, [*headers, *added], *more)

        return answer(environ, start)

    return call


def _error_page(error: HTTPException) -> Response | tuple[str, int, dict[str, str]]:
    if auth.prefers_json() or isinstance(error, BadHost):  # then no link can be made
        return auth.problem(error)
    if isinstance(error, auth.LoginError):
        languages.keep_choice(auth.return_to(error))
    page = render_template(
        "error.html",
        title=translated(getattr(error, "title", error.name)),
        status=error.code,
        message=translated(error.description),
        hint=translated(getattr(error, "hint", None)),
        parts=getattr(error, "parts", None),
        detail=getattr(error, "detail", None),
        code=getattr(error, "error", None),
        reference=getattr(error, "reference", None),
        retry_url=getattr(error, "login_url", None)
        or ((error.code or 500) >= 500 and languages.this_page()),
    )
    headers = dict(error.get_headers())
    return (
        page,
        error.code or 500,
        {**headers, "Content-Type": "text/html; charset=utf-8"},
    )


def _times(state: Mapping[str, Any]) -> dict[str, datetime]:
    names = ("created_at", "used_at", "ends_at")
    return {name: _moment(state["session"][name]) for name in names}


def _time_in(claim: str, value: Any) -> datetime | None:
    """Return the time that a claim is; None where it is none, or an odd one."""
    try:
        if claim in _TIMES and isinstance(value, str):
            return datetime.fromisoformat(value).astimezone(UTC)
        return _moment(value) if claim in _TIMES else None
    except (OSError, OverflowError, TypeError, ValueError):
        return None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


if __name__ == "__main__":
    cli.main(["--app", __file__, "run", *sys.argv[1:]])  # as `flask run`
