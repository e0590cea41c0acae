"""The endpoints for browsers: /authorize, pages, logout."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

import jwt
from flask import Blueprint, abort, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from . import logins
from .authorization import (
    AuthorizationRequest,
    RequestError,
    app_name,
    csp_source,
    invalid_request,
    is_loopback,
    redirect_back,
    with_query,
)
from .backchannel import pop_pushed_request
from .directory import Grant, Question, Session
from .messages import verified_claims
from .provider import tenant
from .tokens import send_logout_token

_COOKIE = "auth0_local"  # the key of the browser's session at the tenant
# Where an app may redirect to after its callback.
_LOOPBACK = "http://localhost:* http://127.0.0.1:* http://*.localhost:*"
#: Pages load only their style and icon. Ends with the allowed form targets.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)

routes = Blueprint("browser", __name__)


@routes.get("/authorize")
def authorize() -> Response:
    """Handle an authorization request (OpenID Connect Core, section 3.1.2)."""
    query = _request_parameters()
    must_push = tenant.require_pushed_authorization_requests
    try:
        if must_push and "request_uri" not in request.args:
            raise invalid_request("Pushed authorization requests are required")
        authz = tenant.check_request(query)
        if not {"link_account", "unlink_account"}.isdisjoint(authz.scope):
            return _ask_to_link(authz, query)
        session = _transferred_session(query) or _usable_session(authz)
    except RequestError as error:
        url, state = query["redirect_uri"], query.get("state")
        return redirect_back(url, state, error.parameters)
    return _continue(authz, session, 302) if session else _ask_for_login(authz)


def _request_parameters() -> Mapping[str, str]:
    """Return the parameters from the query or pushed before (RFC 9126, section 4)."""
    # These errors must not redirect: the redirect_uri is not yet known to be safe.
    if request.args.get("client_id") != tenant.client_id:
        abort(403, "The app that sent you here is unknown: its client_id is wrong.")
    uri = request.args.get("request_uri")
    query = request.args if uri is None else pop_pushed_request(uri)
    if query is None:
        abort(400, "This request was used before, or has expired: start again.")
    url = query.get("redirect_uri") or tenant.callback
    if not tenant.knows_callback(url):
        abort(403, f"“{url}” is not among the allowed callback URLs.")
    return {**query, "redirect_uri": url}


def _transferred_session(query: Mapping[str, str]) -> Session | None:
    """Return a new session for a session transfer token, if there is one."""
    token = query.get("session_transfer_token")
    if not token:
        return None
    user, act = tenant.directory.transfers.pop(token) or (None, None)
    if user is None:
        raise invalid_request("The session_transfer_token is unknown or was used")
    return replace(tenant.directory.sign_in(user), act=act)


def _usable_session(authz: AuthorizationRequest) -> Session | None:
    session = _current_session()
    age = tenant.now() - session.auth_time if session else 0
    if session and authz.max_age is not None and age > authz.max_age:
        session = None
    if "none" in authz.prompt:
        if session is None:
            raise RequestError("login_required", "Login required")
        if _needs_mfa(authz, session):
            raise RequestError("interaction_required", "Multifactor authentication")
    return None if authz.prompt & {"login", "select_account"} else session


def _needs_mfa(authz: AuthorizationRequest, session: Session) -> bool:
    if authz.acr and "none" not in authz.prompt:
        return True  # step-up: an app that requests an acr gets a new proof each time
    methods = tenant.directory.methods.second_factors(session.user.sub)
    return "mfa" not in session.amr and bool(authz.acr or tenant.require_mfa or methods)


def _ask_for_login(authz: AuthorizationRequest) -> Response:
    def sign_in() -> Response:
        username, directory = request.form.get("username"), tenant.directory
        if username is None:
            new_user = directory.new_user(_form_field("name"), _form_field("email"))
            return _continue(authz, directory.sign_in(new_user), 303)
        user = directory.user(username) or abort(400, "There is no such user here.")
        return _continue(authz, directory.sign_in(user), 303)

    return _prompt(Question("login", authz, sign_in))


def _continue(authz: AuthorizationRequest, session: Session, status: int) -> Response:
    """Redirect to the app with a code, or ask for a second factor first."""
    if not _needs_mfa(authz, session):
        return _send_code(authz, session, status)
    sub, methods = session.user.sub, tenant.directory.methods
    if not methods.for_user(sub, "totp"):
        tenant.enroll(session.user)

    def prove() -> Response | None:
        if methods.accept_code(sub, _form_field("code").replace(" ", "")):
            return _send_code(authz, logins.with_mfa(session, authz.acr), 303)
        return None

    return _prompt(Question("factor", authz, prove, {"user": session.user}), status)


def _ask_to_link(authz: AuthorizationRequest, query: Mapping[str, str]) -> Response:
    """Ask a user whether to link or unlink another account."""
    connection = query.get("requested_connection", "")
    try:
        claims = verified_claims(query.get("id_token_hint", ""), tenant.client_id)
        user = tenant.directory.find(claims["sub"])
    except (jwt.PyJWTError, LookupError) as error:
        raise invalid_request(f"The id_token_hint is invalid: {error}") from error
    if connection not in tenant.connections:
        raise invalid_request("the connection was not found")
    session = Session(user, claims["auth_time"], claims["sid"])
    is_link = "link_account" in authz.scope

    def agree() -> Response:
        linked = tenant.directory.linked.setdefault(user.sub, set())
        (linked.add if is_link else linked.discard)(connection)
        return _send_code(authz, session, 303)

    verb, end = ("Link", "too") if is_link else ("Unlink", "no longer")
    text = f"Sign in as {user.label} by {connection}, {end}?"
    context = {"title": f"{verb} an account", "text": text}
    return _prompt(Question("confirm", authz, agree, context))


def _send_code(authz: AuthorizationRequest, session: Session, status: int) -> Response:
    """Redirect to the app with a code (RFC 6749, section 4.1.2)."""
    organization = tenant.directory.organization(authz.organization)
    grant = Grant(session, authz.scope, authz.audience, authz.nonce, organization)
    code = tenant.directory.codes.put((grant, authz))
    response = redirect_back(authz.redirect_uri, authz.state, {"code": code}, status)
    if session != _current_session():  # a new session replaces the browser's old one
        _pop_session()
        key = tenant.directory.sessions.put(session)
        response.set_cookie(_COOKIE, key, httponly=True, samesite="Lax")
    return response


def _prompt(question: Question, status: int = 302) -> Response:
    # The SDK sends browsers to the confirm page, too, with "ticket" instead of "state".
    name = "ticket" if question.page == "confirm" else "state"
    state = {name: tenant.directory.questions.put(question)}
    return redirect(with_query(f"{tenant.origin}/u/{question.page}", state), status)


@routes.route("/u/<any(login, factor, confirm):_>", methods=["GET", "POST"])
def ask(_: str) -> Response:
    """Show a form for login, a second factor or a confirmation, or handle its data."""
    state = request.values.get("state") or request.values.get("ticket", "")
    question = tenant.directory.questions.get(state) or _expired()
    authz = question.request
    if request.method == "GET":
        return _page(state, question)
    error = RequestError("access_denied", "User did not authorize the request")
    denied = redirect_back(authz.redirect_uri, authz.state, error.parameters, 303)
    response = denied if _is_denied() else question.answer()
    if response is None:
        return _page(state, question, "This code is wrong: try again.")
    return response if tenant.directory.questions.pop(state) else _expired()


def _page(state: str, question: Question, mistake: str = "") -> Response:
    authz, directory = question.request, tenant.directory
    html = render_template(
        f"{question.page}.html",
        state=state,
        mistake=mistake,
        authz=authz,
        app=app_name(authz.redirect_uri),
        users=directory.users(),
        organization=directory.organization(authz.organization),
        **question.context,
    )
    response = make_response(html)
    # Chromium applies form-action to redirects after the form, too.
    policy = f"{POLICY} {csp_source(authz.redirect_uri)} {_LOOPBACK}"
    response.headers["Content-Security-Policy"] = policy
    return response


@routes.get("/passwordless/verify_redirect")
def follow_link() -> Response:
    """Sign in the user who follows the link in a message."""
    values = (request.args.get(n, "") for n in ("email", "verification_code"))
    message = logins.pop_message(*values)
    if message is None or message.request is None:
        _expired()
    user = tenant.directory.user_with_address(message.to)
    return _continue(message.request, tenant.directory.sign_in(user), 302)


@routes.route("/u/inbox", methods=["GET", "POST"])
def inbox() -> Response:
    """Show sent messages, one-time codes and CIBA logins that wait for approval."""
    directory = tenant.directory
    if request.method == "POST":
        approval = directory.approvals.get(request.form.get("id", "")) or _expired()
        approval.answer = not _is_denied()
        return redirect("/u/inbox", 303)
    html = render_template(
        "inbox.html",
        approvals=[a for a in directory.approvals.values() if a.answer is None],
        messages=directory.messages.values(),
        codes=directory.methods.current_codes(),
        labels={user.sub: user.label for user in directory.users()},
    )
    return make_response(html)


@routes.get("/v2/logout")
@routes.get("/oidc/logout")
def logout() -> Response:
    """End the tenant's session (OpenID Connect RP-Initiated Logout, section 2)."""
    is_v2 = request.path == "/v2/logout"
    url = request.args.get("returnTo" if is_v2 else "post_logout_redirect_uri")
    if url and not is_loopback(url):
        abort(400, f"“{url}” is not among the allowed logout URLs.")
    if url:
        state = None if is_v2 else request.args.get("state")
        return _end_session(redirect_back(url, state, {}))
    message = "You are signed out of the stand-in for Auth0."
    html = render_template("message.html", title="Signed out", message=message)
    return _end_session(make_response(html))


@routes.route("/u/session", methods=["GET", "POST"])
def session_page() -> Response:
    """Show who is signed in at the tenant, or sign out without a redirect."""
    if request.method == "POST":
        return _end_session(redirect("/u/session", 303))
    user = getattr(_current_session(), "user", None)
    return make_response(render_template("session.html", user=user))


def _end_session(response: Response) -> Response:
    """Sign the browser out with this response."""
    response.delete_cookie(_COOKIE, httponly=True, samesite="Lax")
    session = _pop_session()
    if session is not None:
        # The browser gets its response before the app gets the logout token.
        is_sent = threading.Event()
        response.call_on_close(is_sent.set)
        send_logout_token(tenant, session, is_sent)
    return response


def _is_denied() -> bool:
    action = request.form.get("action", "")
    if action not in {"login", "deny"}:
        abort(400, "This form was not sent by a page of the tenant.")
    return action == "deny"


def _form_field(name: str) -> str:
    return request.form.get(name, "").strip()[:200]


def _expired() -> NoReturn:
    abort(400, "This sign-in has expired. Go back to the app and start again.")


def _current_session() -> Session | None:
    return tenant.directory.sessions.get(request.cookies.get(_COOKIE, ""))


def _pop_session() -> Session | None:
    return tenant.directory.sessions.pop(request.cookies.get(_COOKIE, ""))
