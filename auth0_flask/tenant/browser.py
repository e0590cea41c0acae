"""What a browser meets on the way in: redirects and the login page."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, abort, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from auth0_flask.tenant import cookie, pushed, urls
from auth0_flask.tenant.admission import admit, knows_callback
from auth0_flask.tenant.authorization import AuthorizationRequest, RequestError
from auth0_flask.tenant.grant import Grant, PendingCode, Session, User
from auth0_flask.tenant.pages import content_security_policy, send_back
from auth0_flask.tenant.provider import Provider


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
            asked = admit(self._provider, query)
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
            urls.form_target(asked.redirect_uri)
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
        cookie.remember(self._provider, answer, session)
        return answer

    def _query(self) -> Mapping[str, str]:
        """Return the request, from here or pushed (RFC 9126, section 4)."""
        # No mistake here may redirect: the address is not to be trusted then.
        if request.args.get("client_id") != self._provider.client_id:
            abort(403, "The app that sent you here is unknown: its client_id is wrong.")
        name = request.args.get("request_uri")
        query = request.args if name is None else pushed.take(self._provider, name)
        if query is None:
            abort(400, "This request was used before, or has expired: start again.")
        url = query.get("redirect_uri", "")
        if not knows_callback(self._provider, url):
            abort(403, f"“{url}” is not among the allowed callback URLs.")
        return query

    def _check_pushed(self) -> None:
        must_push = self._provider.require_pushed_authorization_requests
        if must_push and "request_uri" not in request.args:
            raise RequestError(
                "invalid_request", "Pushed authorization requests are required"
            )

    def _usable_session(self, asked: AuthorizationRequest) -> Session | None:
        session = cookie.current(self._provider)
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
