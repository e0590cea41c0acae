"""The cookies, addresses and settings of an app as it is run in production."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, Response
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from auth0_flask.tenant import Tenant
from shop import copy_of_auth, load
from visitor import Shopper


def deployed(tenant: Tenant, callback: str, **more: str) -> Flask:
    """Make the app as a process does that finds these settings in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**tenant.environ(callback), **more}.items():
            patch.setenv(name, value)
        app: Flask = load("app", copy_of_auth({})).create_app()
    return app


CALLBACK, HTTPS = "http://localhost/callback", "https://app.example.com"
SUB = {"FLASK_APPLICATION_ROOT": "/sub"}
DOMAIN = {"FLASK_SESSION_COOKIE_DOMAIN": "example.com"}
DOMAIN |= {"FLASK_SESSION_COOKIE_NAME": "mine"}
SCRIPTS = {"FLASK_SESSION_COOKIE_HTTPONLY": "false"}  # they may read the app's own


@pytest.mark.parametrize(
    ("site", "more", "name", "attributes"),
    [
        (HTTPS, {}, "__Host-session_auth0", {"path=/"}),
        (f"{HTTPS}/sub", SUB, "__Secure-session_auth0", {"path=/sub"}),
        (HTTPS, DOMAIN, "__Secure-mine_auth0", {"path=/", "domain=example.com"}),
        ("http://localhost", SCRIPTS, "session_auth0", {"path=/"}),
    ],
)
def test_cookies_are_as_safe_as_the_address_allows(
    tenant: Tenant, site: str, more: dict[str, str], name: str, attributes: set[str]
) -> None:
    app = deployed(tenant, f"{site}/callback", **more)
    started = app.test_client().get("/login").headers["Set-Cookie"]
    with app.test_request_context():
        auth0 = app.extensions["auth0"].client
        auth0.sessions.save({"user": {"sub": "x"}, "internal": {}, "domain": "x"})
        session = app.process_response(Response()).headers["Set-Cookie"]

    secure = {"secure"} if site.startswith("https") else set()
    for answer, pattern in ((started, rf"{name}_tx\d"), (session, name)):
        cookie, *found = answer.lower().split("; ")
        assert re.fullmatch(pattern.lower(), cookie.partition("=")[0])
        kept = {"httponly", "samesite=lax"} | attributes | secure
        assert {a for a in found if not a.startswith(("expires", "max-age"))} == kept


def test_below_a_path_of_a_bigger_site(tenant: Tenant) -> None:
    app = deployed(tenant, "http://localhost/sub/callback")
    mounts: dict[str, Any] = {"/sub": app.wsgi_app}
    app.wsgi_app = DispatcherMiddleware(NotFound(), mounts)  # type: ignore[method-assign]  # as Flask documents it
    alice = Shopper(app)

    assert alice.login("/sub/profile").location == "/sub/profile"
    profile = alice.client.get("/sub/profile").text
    assert "alice@example.com" in profile
    assert 'href="/sub/logout"' in profile
    away = str(alice.client.get("/sub/logout").location)
    assert parse_qs(urlsplit(away).query)["returnTo"] == ["http://localhost/sub/"]
    assert not alice.client._cookies

    hop = alice.client.get("/sub/login?remember=0", base_url="http://127.0.0.1")
    assert hop.location == "http://localhost/sub/login?remember=0"
    assert alice.login("/sub/login?return_to=/sub/login").location == "/sub/"


@pytest.mark.parametrize(("trusted", "believed"), [(0, None), (1, "near"), (2, "far")])
def test_proxies_are_believed_as_far_as_they_are_trusted(
    tenant: Tenant, trusted: int, believed: str | None
) -> None:
    here = deployed(tenant, CALLBACK, TRUSTED_PROXIES=str(trusted)).test_client()
    ours = {"near": "127.0.0.1, localhost", "far": "localhost, 127.0.0.1"}
    for name, hosts in ours.items():
        headers = {"X-Forwarded-Host": hosts}
        answer = here.get("/login", base_url="http://127.0.0.1", headers=headers)
        # a login on another name than the callback's goes there before it begins
        assert ("/authorize?" in answer.location) == (name == believed), name


def test_a_secret_is_changed_without_signing_anybody_out(tenant: Tenant) -> None:
    def status(shopper: Shopper) -> int:
        return shopper.client.get("/api/me").status_code

    old, new = "o" * 40, "n" * 40
    before, meanwhile, after = (
        deployed(tenant, CALLBACK, AUTH0_SECRET=secrets)
        for secrets in (old, f"{new} {old}", new)
    )
    alice, bob = Shopper(before), Shopper(before, "bob")
    alice.login()
    bobs_way_back = bob.sign_in()

    alice, bob = alice.twin(meanwhile), bob.twin(meanwhile)
    assert status(alice) == 200
    bob.client.get(bobs_way_back)
    assert status(bob) == 200  # begun under the old one, encrypted under the new
    unknown = bob.twin(before).client.get("/profile")  # where it lacks the new
    assert unknown.status_code == 302
    assert "Set-Cookie" not in unknown.headers

    assert status(bob.twin(after)) == 200
    assert status(alice.twin(after)) == 401  # nothing of hers was written in between
