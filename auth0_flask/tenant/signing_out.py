"""The ways out, and the page that says who is signed in."""

from __future__ import annotations

import threading

from flask import Blueprint, abort, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from auth0_flask.tenant import cookie, urls
from auth0_flask.tenant.logout_tokens import announce
from auth0_flask.tenant.pages import send_back
from auth0_flask.tenant.provider import Provider


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
        session = cookie.current(self._provider)
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
        session = cookie.forget(self._provider, answer)
        if session is not None:
            # The browser gets its answer before the app is told.
            answered = threading.Event()
            answer.call_on_close(answered.set)
            announce(self._provider, session, answered)


def _signed_out() -> str:
    return render_template(
        "message.html",
        title="Signed out",
        message="You are signed out of the stand-in.",
    )
