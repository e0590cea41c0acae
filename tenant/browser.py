"""What a browser meets: the way in, the login page and the way out."""

from __future__ import annotations

from flask import Blueprint, abort, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from tenant import urls
from tenant.authorization import AuthorizationRequest, RequestError, read
from tenant.directory import Grant, PendingCode, Session, User
from tenant.provider import Provider

_COOKIE = "auth0_local"


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
        routes.add_url_rule("/v2/logout", view_func=self.logout)
        routes.add_url_rule("/oidc/logout", view_func=self.oidc_logout)
        return routes

    def authorize(self) -> Response:
        """Take an authorization request (OpenID Connect Core, section 3.1.2)."""
        self._check_client()
        try:
            asked = read(request.args)
            session = self._usable_session(asked)
        except RequestError as error:
            return _send_back(
                request.args["redirect_uri"],
                request.args.get("state"),
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
            return _send_back(
                asked.redirect_uri,
                asked.state,
                303,
                error="access_denied",
                error_description="User did not authorize the request",
            )
        session = self._provider.directory.sign_in(user)
        answer = self._send_code(asked, session, 303)
        self._remember(answer, session)
        return answer

    def logout(self) -> Response:
        """End the tenant's session as Auth0's own logout does."""
        return self._end_session(request.args.get("returnTo"), None)

    def oidc_logout(self) -> Response:
        """End it as OpenID Connect RP-Initiated Logout, section 2, says."""
        return self._end_session(
            request.args.get("post_logout_redirect_uri"), request.args.get("state")
        )

    def _check_client(self) -> None:
        # Neither mistake may redirect: the address is not to be trusted then.
        if request.args.get("client_id") != self._provider.client_id:
            abort(403, "The app that sent you here is unknown: its client_id is wrong.")
        url = request.args.get("redirect_uri", "")
        if not urls.allowed(url, self._provider.allowed_callback_urls):
            abort(403, f"“{url}” is not among the allowed callback URLs.")

    def _usable_session(self, asked: AuthorizationRequest) -> Session | None:
        session = self._provider.directory.sessions.get(
            request.cookies.get(_COOKIE, "")
        )
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
        grant = Grant(session, asked.scope, asked.audience, asked.nonce)
        pending = PendingCode(grant, asked.redirect_uri, asked.code_challenge)
        code = self._provider.directory.codes.put(pending)
        return _send_back(asked.redirect_uri, asked.state, status, code=code)

    def _remember(self, answer: Response, session: Session) -> None:
        self._forget()
        key = self._provider.directory.sessions.put(session)
        answer.set_cookie(_COOKIE, key, httponly=True, samesite="Lax")

    def _forget(self) -> None:
        self._provider.directory.sessions.take(request.cookies.get(_COOKIE, ""))

    def _end_session(self, url: str | None, state: str | None) -> Response:
        if url and not urls.allowed(url, self._provider.allowed_logout_urls):
            abort(400, f"“{url}” is not among the allowed logout URLs.")
        self._forget()
        answer = _send_back(url, state) if url else make_response(_signed_out())
        answer.delete_cookie(_COOKIE, httponly=True, samesite="Lax")
        return answer


def content_security_policy(*form_targets: str) -> str:
    """Return a policy that lets a page load its style and nothing else."""
    targets = " ".join(("'self'", *form_targets))
    return (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
        f"frame-ancestors 'none'; form-action {targets}"
    )


def _send_back(
    url: str, state: str | None, status: int = 302, **parameters: str
) -> Response:
    sent = parameters if state is None else {**parameters, "state": state}
    return redirect(urls.with_query(url, sent), status)


def _action() -> str:
    action = request.form.get("action", "")
    if action not in {"login", "deny"}:
        abort(400, "The form was not filled in on the login page.")
    return action


def _field(name: str) -> str:
    return request.form.get(name, "").strip()[:200]


def _signed_out() -> str:
    return render_template(
        "message.html",
        title="Signed out",
        message="You are signed out of the stand-in.",
    )


def _expired() -> AuthorizationRequest:
    abort(
        400,
        "This sign-in has expired. Go back to the app and start again.",
    )
