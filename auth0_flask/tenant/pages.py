"""What all pages for browsers have in common."""

from __future__ import annotations

from flask import redirect
from werkzeug.wrappers import Response

from auth0_flask.tenant import urls


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
