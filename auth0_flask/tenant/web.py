"""The Flask app with all routes of the tenant."""

from __future__ import annotations

from flask import Flask, render_template
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from auth0_flask.tenant.api import Api
from auth0_flask.tenant.backchannel import BackChannel
from auth0_flask.tenant.browser import Browser
from auth0_flask.tenant.pages import content_security_policy
from auth0_flask.tenant.provider import Provider
from auth0_flask.tenant.pushed import PushedRequests
from auth0_flask.tenant.signing_out import SigningOut

_TITLES = {400: "That does not work", 403: "Not allowed", 404: "Nothing here"}


def create_app(provider: Provider) -> Flask:
    """Build the app that both ports serve."""
    app = Flask(__name__)
    # Another name for 127.0.0.1 would let any web site talk to the tenant as
    # if it were of the same origin (DNS rebinding).
    app.config["TRUSTED_HOSTS"] = ["localhost", "127.0.0.1"]
    for part in (Browser, SigningOut, BackChannel, PushedRequests, Api):
        app.register_blueprint(part(provider).blueprint())
    app.register_error_handler(HTTPException, _error_page)
    app.after_request(_add_headers)
    return app


def _error_page(error: HTTPException) -> tuple[str, int, dict[str, str]]:
    status = error.code or 500
    title = _TITLES.get(status, error.name)
    page = render_template("message.html", title=title, message=error.description)
    headers = {n: v for n, v in error.get_headers() if n.lower() != "content-type"}
    return page, status, headers


def _add_headers(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", content_security_policy())
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    return response
