"""What a browser meets: redirects, the pages that ask, and the ways out."""

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
    form_target,
    invalid,
    is_loopback,
    send_back,
    site,
    with_query,
)
from .backchannel import take_pushed
from .directory import Grant, Question, Session
from .messages import own_claims
from .provider import here
from .tokens import announce_logout

_COOKIE = "auth0_local"  # keeps a browser signed in at the tenant
# Where an app may send a browser on to after its callback.
_LOOPBACK = "http://localhost:* http://127.0.0.1:* http://*.localhost:*"
#: Lets a page load its style and nothing else; ends with where its forms may lead.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)

routes = Blueprint("browser", __name__)


@routes.get("/authorize")
def authorize() -> Response:
    """Take an authorization request (OpenID Connect Core, section 3.1.2)."""
    query = _query()
    must_push = here.require_pushed_authorization_requests
    try:
        if must_push and "request_uri" not in request.args:
            raise invalid("Pushed authorization requests are required")
        asked = here.admit(query)
        if not {"link_account", "unlink_account"}.isdisjoint(asked.scope):
            return _ask_to_link(asked, query)
        session = _transferred(query) or _usable_session(asked)
    except RequestError as error:
        return send_back(query["redirect_uri"], query.get("state"), error.told)
    return _go_on(asked, session, 302) if session else _ask_who(asked)


def _query() -> Mapping[str, str]:
    """Return the request, from here or pushed (RFC 9126, section 4)."""
    # No mistake here may redirect: the address is not to be trusted then.
    if request.args.get("client_id") != here.client_id:
        abort(403, "The app that sent you here is unknown: its client_id is wrong.")
    name = request.args.get("request_uri")
    query = request.args if name is None else take_pushed(name)
    if query is None:
        abort(400, "This request was used before, or has expired: start again.")
    url = query.get("redirect_uri") or here.callback
    if not here.knows_callback(url):
        abort(403, f"“{url}” is not among the allowed callback URLs.")
    return {**query, "redirect_uri": url}


def _transferred(query: Mapping[str, str]) -> Session | None:
    """Return the session that a session transfer token begins, which is good once."""
    token = query.get("session_transfer_token")
    if not token:
        return None
    user, act = here.directory.transfers.take(token) or (None, None)
    if user is None:
        raise invalid("The session_transfer_token is unknown, or was used")
    return replace(here.directory.sign_in(user), act=act)


def _usable_session(asked: AuthorizationRequest) -> Session | None:
    session = _current_session()
    age = here.now() - session.auth_time if session else 0
    if session and asked.max_age is not None and age > asked.max_age:
        session = None
    if "none" in asked.prompt:
        if session is None:
            raise RequestError("login_required", "Login required")
        if _wants_factor(asked, session):
            raise RequestError("interaction_required", "Multifactor authentication")
    return None if asked.prompt & {"login", "select_account"} else session


def _wants_factor(asked: AuthorizationRequest, session: Session) -> bool:
    if asked.acr and "none" not in asked.prompt:
        return True  # as often as an app asks, for what it guards by it
    has = here.directory.methods.second_factors(session.user.sub)
    return "mfa" not in session.amr and bool(asked.acr or here.require_mfa or has)


def _ask_who(asked: AuthorizationRequest) -> Response:
    def sign_in() -> Response:
        username, directory = request.form.get("username"), here.directory
        if username is None:
            newcomer = directory.newcomer(_field("name"), _field("email"))
            return _go_on(asked, directory.sign_in(newcomer), 303)
        user = directory.user(username) or abort(400, "There is no such user here.")
        return _go_on(asked, directory.sign_in(user), 303)

    return _ask(Question("login", asked, sign_in))


def _go_on(asked: AuthorizationRequest, session: Session, status: int) -> Response:
    """Go back with a code, or first ask for a second factor."""
    if not _wants_factor(asked, session):
        return _send_code(asked, session, status)
    sub, methods = session.user.sub, here.directory.methods
    if not methods.of(sub, "totp"):
        here.enroll(session.user)

    def prove() -> Response | None:
        if methods.takes(sub, _field("code").replace(" ", "")):
            return _send_code(asked, logins.proved(session, asked.acr), 303)
        return None

    return _ask(Question("factor", asked, prove, {"user": session.user}), status)


def _ask_to_link(asked: AuthorizationRequest, query: Mapping[str, str]) -> Response:
    """Ask a user to link an account elsewhere, or no longer to."""
    connection = query.get("requested_connection", "")
    try:
        claims = own_claims(query.get("id_token_hint", ""), here.client_id)
        user = here.directory.find(claims["sub"])
    except (jwt.PyJWTError, LookupError) as error:
        raise invalid(f"The id_token_hint is wrong: {error}") from error
    if connection not in here.connections:
        raise invalid("the connection was not found")
    session = Session(user, claims["auth_time"], claims["sid"])
    link = "link_account" in asked.scope

    def agree() -> Response:
        linked = here.directory.linked.setdefault(user.sub, set())
        (linked.add if link else linked.discard)(connection)
        return _send_code(asked, session, 303)

    title, end = ("Link", "too") if link else ("Unlink", "no longer")
    text = f"Sign in as {user.label} by {connection}, {end}?"
    shown = {"title": f"{title} an account", "text": text}
    return _ask(Question("confirm", asked, agree, shown))


def _send_code(asked: AuthorizationRequest, session: Session, status: int) -> Response:
    """Go back with a code (RFC 6749, section 4.1.2)."""
    organization = here.directory.organization(asked.organization)
    grant = Grant(session, asked.scope, asked.audience, asked.nonce, organization)
    code = here.directory.codes.put((grant, asked))
    answer = send_back(asked.redirect_uri, asked.state, {"code": code}, status)
    if session != _current_session():  # signed in, in place of who was
        _take_session()
        key = here.directory.sessions.put(session)
        answer.set_cookie(_COOKIE, key, httponly=True, samesite="Lax")
    return answer


def _ask(question: Question, status: int = 302) -> Response:
    # The SDK, too, sends browsers to confirm something, and says "ticket".
    name = "ticket" if question.page == "confirm" else "state"
    sent = {name: here.directory.questions.put(question)}
    return redirect(with_query(f"{here.origin}/u/{question.page}", sent), status)


@routes.route("/u/<any(login, factor, confirm):_>", methods=["GET", "POST"])
def ask(_: str) -> Response:
    """Ask a user who it is, for a code, or whether to go on; and take the answer."""
    state = request.values.get("state") or request.values.get("ticket", "")
    question = here.directory.questions.get(state) or _expired()
    asked = question.asked
    if request.method == "GET":
        return _page(state, question)
    refusal = RequestError("access_denied", "User did not authorize the request")
    refused = send_back(asked.redirect_uri, asked.state, refusal.told, 303)
    answer = refused if _denied() else question.answer()
    if answer is None:
        return _page(state, question, "This code is wrong: try again.")
    return answer if here.directory.questions.take(state) else _expired()


def _page(state: str, question: Question, mistake: str = "") -> Response:
    asked, directory = question.asked, here.directory
    page = render_template(
        f"{question.page}.html",
        state=state,
        mistake=mistake,
        asked=asked,
        app=site(asked.redirect_uri),
        users=directory.users(),
        organization=directory.organization(asked.organization),
        **question.shown,
    )
    answer = make_response(page)
    # Chromium applies form-action to where the form's answer redirects, too.
    targets = f"{POLICY} {form_target(asked.redirect_uri)} {_LOOPBACK}"
    answer.headers["Content-Security-Policy"] = targets
    return answer


@routes.get("/passwordless/verify_redirect")
def follow_link() -> Response:
    """Sign in who follows the link in a message."""
    shown = (request.args.get(n, "") for n in ("email", "verification_code"))
    message = logins.take_message(*shown)
    if message is None or message.asked is None:
        _expired()
    user = here.directory.owner(message.to)
    return _go_on(message.asked, here.directory.sign_in(user), 302)


@routes.route("/u/inbox", methods=["GET", "POST"])
def inbox() -> Response:
    """Show what users are sent, what authenticators show, and logins to approve."""
    directory = here.directory
    if request.method == "POST":
        approval = directory.approvals.get(request.form.get("id", "")) or _expired()
        approval.answer = not _denied()
        return redirect("/u/inbox", 303)
    page = render_template(
        "inbox.html",
        approvals=[a for a in directory.approvals.values() if a.answer is None],
        messages=directory.messages.values(),
        codes=directory.methods.codes(),
        labels={user.sub: user.label for user in directory.users()},
    )
    return make_response(page)


@routes.get("/v2/logout")
@routes.get("/oidc/logout")
def logout() -> Response:
    """End the tenant's session (OpenID Connect RP-Initiated Logout, section 2)."""
    auth0s = request.path == "/v2/logout"
    url = request.args.get("returnTo" if auth0s else "post_logout_redirect_uri")
    if url and not is_loopback(url):
        abort(400, f"“{url}” is not among the allowed logout URLs.")
    if url:
        state = None if auth0s else request.args.get("state")
        return _end_session(send_back(url, state, {}))
    message = "You are signed out of the stand-in for Auth0."
    page = render_template("message.html", title="Signed out", message=message)
    return _end_session(make_response(page))


@routes.route("/u/session", methods=["GET", "POST"])
def session_page() -> Response:
    """Say who is signed in here, and sign out without a redirect to the app."""
    if request.method == "POST":
        return _end_session(redirect("/u/session", 303))
    user = getattr(_current_session(), "user", None)
    return make_response(render_template("session.html", user=user))


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


def _current_session() -> Session | None:
    return here.directory.sessions.get(request.cookies.get(_COOKIE, ""))


def _take_session() -> Session | None:
    return here.directory.sessions.take(request.cookies.get(_COOKIE, ""))
