"""What a browser meets: redirects, the pages that ask, and the ways out."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

import jwt
from flask import Blueprint, abort, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from . import logins, mfa
from .authorization import (
    AuthorizationRequest,
    RequestError,
    allowed,
    form_target,
    invalid,
    site,
    with_query,
)
from .backchannel import take_pushed
from .directory import Grant, PendingCode, Question, Session, User
from .provider import here
from .tokens import announce_logout
from .verification import own_claims

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
        if not {"link_account", "unlink_account"}.isdisjoint(asked.scope):
            return _link(asked, query)
        session = _transferred(query) or _usable_session(asked)
    except RequestError as error:
        return send_back(
            query["redirect_uri"],
            query.get("state"),
            error=error.error,
            error_description=str(error),
        )
    if session is not None:
        return _go_on(asked, session, 302)
    return _ask("login", state=here.directory.requests.put(asked))


@routes.get("/u/login")
def login_page() -> Response:
    """Show who can sign in, and let anybody else do so, too."""
    state = request.args.get("state", "")
    asked = here.directory.requests.get(state) or _expired()
    page = render_template(
        "login.html",
        asked=asked,
        state=state,
        app=site(asked.redirect_uri),
        users=here.directory.users(),
        organization=here.directory.organization(asked.organization),
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
    return _send_code(asked, mfa.proved(session, asked.acr), 303)


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


def _transferred(query: Mapping[str, str]) -> Session | None:
    """Return the session that a session transfer token begins, which is good once."""
    token = query.get("session_transfer_token")
    if not token:
        return None
    user, act = here.directory.transfers.take(token) or (None, None)
    if user is None:
        raise invalid("The session_transfer_token is unknown, or was used")
    return replace(here.directory.sign_in(user), act=act)


def _link(asked: AuthorizationRequest, query: Mapping[str, str]) -> Response:
    """Ask a user to link an account elsewhere, or no longer to."""
    connection = query.get("requested_connection", "")
    try:
        claims = own_claims(query.get("id_token_hint", ""), here.client_id)
        user = here.directory.find(claims["sub"])
    except (jwt.PyJWTError, LookupError) as error:
        raise invalid(f"The id_token_hint is wrong: {error}") from error
    if connection not in here.connections:
        raise invalid("the connection was not found")
    amr = tuple(claims.get("amr", ()))
    session = Session(user, claims["auth_time"], claims["sid"], amr)
    link = "link_account" in asked.scope

    def yes() -> dict[str, str]:
        linked = here.directory.linked.setdefault(user.sub, set())
        (linked.add if link else linked.discard)(connection)
        return {"code": _code(asked, session)}

    title = f"{'Link' if link else 'Unlink'} an account"
    text = f"Sign in as {user.label} by {connection}, too?"
    if not link:
        text = f"Sign in as {user.label} by {connection} no longer?"
    question = Question(title, text, asked.redirect_uri, asked.state, yes)
    return _ask("confirm", ticket=here.directory.questions.put(question))


@routes.get("/u/confirm")
def confirm_page() -> Response:
    """Ask a user whether to go on."""
    ticket = request.args.get("ticket", "")
    question = here.directory.questions.get(ticket) or _expired()
    page = render_template("confirm.html", question=question, ticket=ticket)
    return _form_page(page, question.redirect_uri)


@routes.post("/u/confirm")
def confirm() -> Response:
    """Take the answer."""
    denied, ticket = _denied(), request.form.get("ticket", "")
    question = here.directory.questions.take(ticket) or _expired()
    answer = _DENIED if denied else question.yes()
    return send_back(question.redirect_uri, question.state, 303, **answer)


@routes.get("/passwordless/verify_redirect")
def follow_link() -> Response:
    """Sign in who follows the link in a message."""
    shown = (request.args.get(n, "") for n in ("email", "verification_code"))
    message = logins.take_message("email", *shown)
    if message is None or message.asked is None:
        _expired()
    user = here.directory.owner("email", message.to)
    return _go_on(message.asked, here.directory.sign_in(user), 302)


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
    return _ask("factor", status, state=here.directory.unproved.put((asked, session)))


def _send_code(asked: AuthorizationRequest, session: Session, status: int) -> Response:
    """Go back with a code (RFC 6749, section 4.1.2)."""
    code = _code(asked, session)
    answer = send_back(asked.redirect_uri, asked.state, status, code=code)
    if session != _current_session():  # signed in, in place of who was
        _take_session()
        key = here.directory.sessions.put(session)
        answer.set_cookie(_COOKIE, key, httponly=True, samesite="Lax")
    return answer


def _code(asked: AuthorizationRequest, session: Session) -> str:
    organization = here.directory.organization(asked.organization)
    grant = Grant(session, asked.scope, asked.audience, asked.nonce, organization)
    pending = PendingCode(grant, asked.redirect_uri, asked.code_challenge)
    return here.directory.codes.put(pending)


def _ask(page: str, status: int = 302, **query: str) -> Response:
    return redirect(with_query(f"{here.origin}/u/{page}", query), status)


def _factor_page(state: str, mistake: str = "") -> Response:
    asked, session = here.directory.unproved.get(state) or _expired()
    user = session.user
    page = render_template("factor.html", state=state, user=user, mistake=mistake)
    return _form_page(page, asked.redirect_uri)


def _form_page(text: str, target: str) -> Response:
    page = make_response(text)
    # Chromium applies form-action to where the form's answer redirects, too.
    page.headers["Content-Security-Policy"] = content_security_policy(
        form_target(target), *_LOOPBACK
    )
    return page


@routes.get("/u/inbox")
def inbox() -> str:
    """Show what the users' mailboxes, phones and authenticators show."""
    directory = here.directory
    return render_template(
        "inbox.html",
        approvals=[a for a in directory.approvals.values() if a.answer is None],
        messages=directory.messages.values(),
        codes=directory.methods.codes(),
        labels={user.sub: user.label for user in directory.users()},
    )


@routes.post("/u/inbox")
def approve() -> Response:
    """Approve a login elsewhere, or refuse to."""
    denied, name = _denied(), request.form.get("id", "")
    approval = here.directory.approvals.get(name) or _expired()
    approval.answer = not denied
    return redirect("/u/inbox", 303)


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
    if url and not allowed(url, here.allowed_logout_urls):
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
    return redirect(with_query(url, sent), status)


def _current_session() -> Session | None:
    """Return the session of the browser that asks, or None."""
    return here.directory.sessions.get(request.cookies.get(_COOKIE, ""))


def _take_session() -> Session | None:
    return here.directory.sessions.take(request.cookies.get(_COOKIE, ""))
