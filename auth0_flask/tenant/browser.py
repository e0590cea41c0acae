"""What a browser meets: redirects, the login page, and the ways out."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from flask import Blueprint, abort, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from auth0_flask.tenant import urls
from auth0_flask.tenant.authorization import AuthorizationRequest, RequestError
from auth0_flask.tenant.backchannel import take_pushed
from auth0_flask.tenant.provider import Provider
from auth0_flask.tenant.tokens import announce_logout
from auth0_flask.tenant.users import Grant, PendingCode, Session, User

_COOKIE = "auth0_local"  # keeps a browser signed in at the tenant


class Browser:
    """The pages and redirects for one provider."""

    def __init__(self, provider: Provider) -> None:
        """Answer for this provider."""
        self._provider = provider

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("browser", __name__)
        routes.add_url_rule("/authorize", view_func=self.authorize)
        routes.add_url_rule("/u/login", view_func=self.login_page)
        routes.add_url_rule("/u/login", view_func=self.login, methods=["POST"])
        return routes

    def authorize(self) -> Response:
        """Take an authorization request (OpenID Connect Core, section 3.1.2)."""
        query = self._query()
        try:
            self._check_pushed()
            asked = self._provider.admit(query)
            session = self._usable_session(asked)
        except RequestError as error:
            return send_back(
                query["redirect_uri"],
                query.get("state"),
                error=error.error,
                error_description=error.description,
            )
        if session is not None:
            return self._send_code(asked, session, 302)
        kept = self._provider.directory.requests.put(asked)
        return redirect(
            urls.with_query(f"{self._provider.origin}/u/login", {"state": kept})
        )

    def login_page(self) -> Response:
        """Show who can sign in, and let anybody else do so, too."""
        state = request.args.get("state", "")
        asked = self._provider.directory.requests.get(state) or _expired()
        page = make_response(
            render_template(
                "login.html",
                asked=asked,
                state=state,
                app=urls.form_target(asked.redirect_uri).partition("//")[2],
                users=self._provider.directory.users(),
                organization=self._provider.organizations.find(asked.organization),
            )
        )
        # Chromium applies form-action to where the form's answer redirects, too.
        page.headers["Content-Security-Policy"] = content_security_policy(
            urls.form_target(asked.redirect_uri), *_LOOPBACK
        )
        return page

    def login(self) -> Response:
        """Take what was chosen on the login page."""
        deny = _action() == "deny"
        user = None if deny else self._chosen_user()
        kept = self._provider.directory.requests.take(request.form.get("state", ""))
        asked = kept or _expired()
        if user is None:
            return send_back(
                asked.redirect_uri,
                asked.state,
                303,
                error="access_denied",
                error_description="User did not authorize the request",
            )
        session = self._provider.directory.sign_in(user)
        answer = self._send_code(asked, session, 303)
        _keep_session(self._provider, answer, session)
        return answer

    def _query(self) -> Mapping[str, str]:
        """Return the request, from here or pushed (RFC 9126, section 4)."""
        # No mistake here may redirect: the address is not to be trusted then.
        if request.args.get("client_id") != self._provider.client_id:
            abort(403, "The app that sent you here is unknown: its client_id is wrong.")
        name = request.args.get("request_uri")
        query = request.args if name is None else take_pushed(self._provider, name)
        if query is None:
            abort(400, "This request was used before, or has expired: start again.")
        url = query.get("redirect_uri", "")
        if not self._provider.knows_callback(url):
            abort(403, f"“{url}” is not among the allowed callback URLs.")
        return query

    def _check_pushed(self) -> None:
        must_push = self._provider.require_pushed_authorization_requests
        if must_push and "request_uri" not in request.args:
            raise RequestError(
                "invalid_request", "Pushed authorization requests are required"
            )

    def _usable_session(self, asked: AuthorizationRequest) -> Session | None:
        session = _current_session(self._provider)
        if session is not None and not self._is_recent(session, asked.max_age):
            session = None
        if "none" in asked.prompt and session is None:
            raise RequestError("login_required", "Login required")
        return None if asked.wants_login_page else session

    def _is_recent(self, session: Session, max_age: int | None) -> bool:
        return max_age is None or self._provider.now() - session.auth_time <= max_age

    def _chosen_user(self) -> User:
        directory = self._provider.directory
        username = request.form.get("username")
        if username is not None:
            return directory.user(username) or abort(400, "There is no such user here.")
        return directory.newcomer(_field("name"), _field("email"))

    def _send_code(
        self, asked: AuthorizationRequest, session: Session, status: int
    ) -> Response:
        """Go back with a code (RFC 6749, section 4.1.2)."""
        organization = self._provider.organizations.find(asked.organization)
        grant = Grant(session, asked.scope, asked.audience, asked.nonce, organization)
        pending = PendingCode(grant, asked.redirect_uri, asked.code_challenge)
        code = self._provider.directory.codes.put(pending)
        return send_back(asked.redirect_uri, asked.state, status, code=code)


class SigningOut:
    """The pages and redirects that end a session."""

    def __init__(self, provider: Provider) -> None:
        """End sessions of this provider."""
        self._provider = provider

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("signing_out", __name__)
        routes.add_url_rule("/v2/logout", view_func=self.logout)
        routes.add_url_rule("/oidc/logout", view_func=self.oidc_logout)
        routes.add_url_rule("/u/session", view_func=self.session_page)
        routes.add_url_rule("/u/session", view_func=self.sign_out, methods=["POST"])
        return routes

    def logout(self) -> Response:
        """End the tenant's session as Auth0's own logout does."""
        return self._send_away(request.args.get("returnTo"), None)

    def oidc_logout(self) -> Response:
        """End it as OpenID Connect RP-Initiated Logout, section 2, says."""
        return self._send_away(
            request.args.get("post_logout_redirect_uri"), request.args.get("state")
        )

    def session_page(self) -> str:
        """Say who is signed in at the tenant in this browser."""
        session = _current_session(self._provider)
        return render_template("session.html", user=session.user if session else None)

    def sign_out(self) -> Response:
        """End the tenant's session, without the app's knowing of it by a redirect."""
        answer = redirect("/u/session", 303)
        self._end_session(answer)
        return answer

    def _send_away(self, url: str | None, state: str | None) -> Response:
        if url and not urls.allowed(url, self._provider.allowed_logout_urls):
            abort(400, f"“{url}” is not among the allowed logout URLs.")
        answer = send_back(url, state) if url else make_response(_signed_out())
        self._end_session(answer)
        return answer

    def _end_session(self, answer: Response) -> None:
        session = _end_session(self._provider, answer)
        if session is not None:
            # The browser gets its answer before the app is told.
            answered = threading.Event()
            answer.call_on_close(answered.set)
            announce_logout(self._provider, session, answered)


def _action() -> str:
    action = request.form.get("action", "")
    if action not in {"login", "deny"}:
        abort(400, "The form was not filled in on the login page.")
    return action


def _field(name: str) -> str:
    return request.form.get(name, "").strip()[:200]


def _expired() -> AuthorizationRequest:
    abort(
        400,
        "This sign-in has expired. Go back to the app and start again.",
    )


def _signed_out() -> str:
    return render_template(
        "message.html",
        title="Signed out",
        message="You are signed out of the stand-in.",
    )


#: Where an app may send a browser on to after its callback.
_LOOPBACK = ("http://localhost:*", "http://127.0.0.1:*", "http://*.localhost:*")


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


def _current_session(provider: Provider) -> Session | None:
    """Return the session of the browser that asks, or None."""
    return provider.directory.sessions.get(request.cookies.get(_COOKIE, ""))


def _keep_session(provider: Provider, answer: Response, session: Session) -> None:
    """Sign the browser in, in place of whom it was signed in as."""
    _take_session(provider)
    key = provider.directory.sessions.put(session)
    answer.set_cookie(_COOKIE, key, httponly=True, samesite="Lax")


def _end_session(provider: Provider, answer: Response) -> Session | None:
    """Sign the browser out; return the session that ended, or None."""
    answer.delete_cookie(_COOKIE, httponly=True, samesite="Lax")
    return _take_session(provider)


def _take_session(provider: Provider) -> Session | None:
    return provider.directory.sessions.take(request.cookies.get(_COOKIE, ""))
