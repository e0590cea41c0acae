"""What a browser meets: redirects, the pages that ask, and the ways out."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NoReturn

from flask import Blueprint, abort, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from auth0_flask.tenant import mfa, urls
from auth0_flask.tenant.authorization import AuthorizationRequest, RequestError
from auth0_flask.tenant.backchannel import take_pushed
from auth0_flask.tenant.provider import here
from auth0_flask.tenant.tokens import announce_logout
from auth0_flask.tenant.users import Grant, PendingCode, Session, User

_COOKIE = "auth0_local"  # keeps a browser signed in at the tenant
_DENIED = {
    "error": "access_denied",
    "error_description": "User did not authorize the request",
}
#: Where an app may send a browser on to after its callback.
_LOOPBACK = ("http://localhost:*", "http://127.0.0.1:*", "http://*.localhost:*")

routes = Blueprint("browser", __name__)


@routes.get("/authorize")
def authorize() -> Response:
    """Take an authorization request (OpenID Connect Core, section 3.1.2)."""
    query = _query()
    try:
        if here.require_pushed_authorization_requests and (
            "request_uri" not in request.args
        ):
            raise RequestError(
                "invalid_request", "Pushed authorization requests are required"
            )
        asked = here.admit(query)
        session = _usable_session(asked)
    except RequestError as error:
        return send_back(
            query["redirect_uri"],
            query.get("state"),
            error=error.error,
            error_description=error.description,
        )
    if session is not None:
        return _go_on(asked, session, 302)
    return _ask("login", here.directory.requests.put(asked), 302)


@routes.get("/u/login")
def login_page() -> Response:
    """Show who can sign in, and let anybody else do so, too."""
    state = request.args.get("state", "")
    asked = here.directory.requests.get(state) or _expired()
    page = render_template(
        "login.html",
        asked=asked,
        state=state,
        app=urls.form_target(asked.redirect_uri).partition("//")[2],
        users=here.directory.users(),
        organization=here.organizations.find(asked.organization),
    )
    return _form_page(page, asked.redirect_uri)


@routes.post("/u/login")
def login() -> Response:
    """Take what was chosen on the login page."""
    user = None if _denied() else _chosen_user()
    asked = here.directory.requests.take(request.form.get("state", "")) or _expired()
    if user is None:
        return send_back(asked.redirect_uri, asked.state, 303, **_DENIED)
    return _go_on(asked, here.directory.sign_in(user), 303)


@routes.get("/u/factor")
def factor_page() -> Response:
    """Ask for a second factor."""
    return _factor_page(request.args.get("state", ""))


@routes.post("/u/factor")
def prove() -> Response:
    """Take a second factor."""
    state, code = request.form.get("state", ""), _field("code").replace(" ", "")
    directory = here.directory
    asked, session = directory.unproved.get(state) or _expired()
    if _denied():
        directory.unproved.take(state)
        return send_back(asked.redirect_uri, asked.state, 303, **_DENIED)
    sub, methods = session.user.sub, directory.methods
    if not (methods.takes_otp(sub, code) or methods.takes_recovery_code(sub, code)):
        return _factor_page(state, "This code is wrong: try again.")
    directory.unproved.take(state)
    return _send_code(asked, mfa.proved(here, session, asked.acr), 303)


def _query() -> Mapping[str, str]:
    """Return the request, from here or pushed (RFC 9126, section 4)."""
    # No mistake here may redirect: the address is not to be trusted then.
    if request.args.get("client_id") != here.client_id:
        abort(403, "The app that sent you here is unknown: its client_id is wrong.")
    name = request.args.get("request_uri")
    query = request.args if name is None else take_pushed(here, name)
    if query is None:
        abort(400, "This request was used before, or has expired: start again.")
    url = query.get("redirect_uri", "")
    if not here.knows_callback(url):
        abort(403, f"“{url}” is not among the allowed callback URLs.")
    return query


def _usable_session(asked: AuthorizationRequest) -> Session | None:
    session = _current_session()
    age = here.now() - session.auth_time if session else 0
    if session and asked.max_age is not None and age > asked.max_age:
        session = None
    if "none" in asked.prompt:
        if session is None:
            raise RequestError("login_required", "Login required")
        if _wants_factor(asked, session) and "mfa" not in session.amr:
            raise RequestError(
                "interaction_required", "Multifactor authentication required"
            )
    return None if asked.wants_login_page else session


def _wants_factor(asked: AuthorizationRequest, session: Session) -> bool:
    if asked.acr:  # as often as an app asks, for what it guards by it
        return "none" not in asked.prompt or "mfa" not in session.amr
    methods = here.directory.methods
    has = here.require_mfa or methods.second_factors(session.user.sub)
    return bool(has) and "mfa" not in session.amr


def _chosen_user() -> User:
    username = request.form.get("username")
    if username is not None:
        return here.directory.user(username) or abort(
            400, "There is no such user here."
        )
    return here.directory.newcomer(_field("name"), _field("email"))


def _go_on(asked: AuthorizationRequest, session: Session, status: int) -> Response:
    """Go back with a code, or first ask for a second factor."""
    if not _wants_factor(asked, session):
        return _send_code(asked, session, status)
    if not here.directory.methods.of(session.user.sub, "totp"):
        here.enroll(session.user)
    return _ask("factor", here.directory.unproved.put((asked, session)), status)


def _send_code(asked: AuthorizationRequest, session: Session, status: int) -> Response:
    """Go back with a code (RFC 6749, section 4.1.2)."""
    organization = here.organizations.find(asked.organization)
    grant = Grant(session, asked.scope, asked.audience, asked.nonce, organization)
    pending = PendingCode(grant, asked.redirect_uri, asked.code_challenge)
    code = here.directory.codes.put(pending)
    answer = send_back(asked.redirect_uri, asked.state, status, code=code)
    if session != _current_session():  # signed in, in place of who was
        _take_session()
        key = here.directory.sessions.put(session)
        answer.set_cookie(_COOKIE, key, httponly=True, samesite="Lax")
    return answer


def _ask(page: str, state: str, status: int) -> Response:
    return redirect(
        urls.with_query(f"{here.origin}/u/{page}", {"state": state}), status
    )


def _factor_page(state: str, mistake: str = "") -> Response:
    asked, session = here.directory.unproved.get(state) or _expired()
    user = session.user
    page = render_template("factor.html", state=state, user=user, mistake=mistake)
    return _form_page(page, asked.redirect_uri)


def _form_page(text: str, target: str) -> Response:
    page = make_response(text)
    # Chromium applies form-action to where the form's answer redirects, too.
    page.headers["Content-Security-Policy"] = content_security_policy(
        urls.form_target(target), *_LOOPBACK
    )
    return page


@routes.get("/u/inbox")
def inbox() -> str:
    """Show what the users' authenticators show."""
    methods = here.directory.methods
    codes = [
        (user, methods.code(method))
        for user in here.directory.users()
        for method in methods.of(user.sub, "totp")
    ]
    return render_template("inbox.html", codes=codes)


@routes.get("/v2/logout")
def logout() -> Response:
    """End the tenant's session as Auth0's own logout does."""
    return _send_away(request.args.get("returnTo"), None)


@routes.get("/oidc/logout")
def oidc_logout() -> Response:
    """End it as OpenID Connect RP-Initiated Logout, section 2, says."""
    return _send_away(
        request.args.get("post_logout_redirect_uri"), request.args.get("state")
    )


@routes.get("/u/session")
def session_page() -> str:
    """Say who is signed in at the tenant in this browser."""
    session = _current_session()
    return render_template("session.html", user=session.user if session else None)


@routes.post("/u/session")
def sign_out() -> Response:
    """End the tenant's session, without the app's knowing of it by a redirect."""
    return _end_session(redirect("/u/session", 303))


def _send_away(url: str | None, state: str | None) -> Response:
    if url and not urls.allowed(url, here.allowed_logout_urls):
        abort(400, f"“{url}” is not among the allowed logout URLs.")
    if url:
        return _end_session(send_back(url, state))
    message = "You are signed out of the stand-in."
    page = render_template("message.html", title="Signed out", message=message)
    return _end_session(make_response(page))


def _end_session(answer: Response) -> Response:
    """Sign the browser out, with this answer."""
    answer.delete_cookie(_COOKIE, httponly=True, samesite="Lax")
    session = _take_session()
    if session is not None:
        # The browser gets its answer before the app is told.
        answered = threading.Event()
        answer.call_on_close(answered.set)
        announce_logout(here, session, answered)
    return answer


def _denied() -> bool:
    action = request.form.get("action", "")
    if action not in {"login", "deny"}:
        abort(400, "The form was not filled in on the login page.")
    return action == "deny"


def _field(name: str) -> str:
    return request.form.get(name, "").strip()[:200]


def _expired() -> NoReturn:
    abort(400, "This sign-in has expired. Go back to the app and start again.")


def content_security_policy(*form_targets: str) -> str:
    """Return a policy that lets a page load its style and nothing else."""
    targets = " ".join(("'self'", *form_targets))
    return (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
        f"frame-ancestors 'none'; form-action {targets}"
    )


def send_back(
    url: str, state: str | None, status: int = 302, **parameters: str
) -> Response:
    """Send a browser back to the app, with its ``state`` where it gave one."""
    sent = parameters if state is None else {**parameters, "state": state}
    return redirect(urls.with_query(url, sent), status)


def _current_session() -> Session | None:
    """Return the session of the browser that asks, or None."""
    return here.directory.sessions.get(request.cookies.get(_COOKIE, ""))


def _take_session() -> Session | None:
    return here.directory.sessions.take(request.cookies.get(_COOKIE, ""))
