"""A login at an OpenID provider that knows nothing of Auth0: oidc-provider-mock.

It is served over https, as Auth0 is. It has none of what Auth0 has beside OpenID
Connect, so the ends of a session there are tried and found missing.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx
import oidc_provider_mock
import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

SITE = "http://localhost:5000"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The provider, and the settings for it; a browser to use it with."""
    tmp_path = tmp_path_factory.mktemp("provider")
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.cert_pem.write_to_path(trusted := str(tmp_path / "ca.pem"))
    claims = {"name": "Alice", "email": "alice@example.com"}
    alice = oidc_provider_mock.User(sub="alice", claims=claims)
    app = oidc_provider_mock.app(user_claims=[alice], require_nonce=True)
    server = make_server("localhost", 0, app, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    domain = f"localhost:{server.server_port}"
    os.environ |= {
        "SSL_CERT_FILE": trusted,
        "AUTH0_DOMAIN": domain,
        "AUTH0_CLIENT_ID": "an-id",
        "AUTH0_CLIENT_SECRET": "a-secret",
        "AUTH0_SECRET": "s" * 32,
        "AUTH0_REDIRECT_URI": f"{SITE}/callback",
        # it knows no offline_access, issues refresh tokens without, and refuses a
        # refresh that asks for what was not granted, as the SDK would
        "AUTH0_SCOPE": "openid profile email",
        "AUTH0_REVOCATIONS_PATH": str(tmp_path / "revocations.sqlite3"),
    }
    verify = ssl.create_default_context(cafile=trusted)
    with httpx.Client(base_url=f"https://{domain}", verify=verify) as browser:
        yield browser
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(provider: httpx.Client) -> FlaskClient:
    """A browser of an app that uses the provider."""
    import auth

    app = auth.init_app(Flask("shop"))
    app.register_blueprint(auth.routes)
    app.add_url_rule("/me", "me", auth.login_required(lambda: dict(auth.auth_user)))
    app.add_url_rule("/session", "session", lambda: auth.auth0.read_session() or {})

    @app.get("/token")
    async def token() -> str:
        return await auth.auth0.get_access_token()

    @app.get("/renewed")
    async def renewed() -> dict[str, object]:
        return await auth.auth0.refresh_user()

    return app.test_client()


def userinfo(provider: httpx.Client, token: str) -> dict[str, object]:
    answer = provider.get("/userinfo", headers={"Authorization": f"Bearer {token}"})
    found: dict[str, object] = answer.raise_for_status().json()
    return found


def test_login_refresh_and_logout(
    provider: httpx.Client,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert client.get("/me").location == "/login?return_to=/me"
    asked = client.get("/login?return_to=/me").location
    assert provider.get(asked).status_code == 200
    back = urlsplit(provider.post(asked, data={"sub": "alice"}).headers["Location"])
    assert client.get(f"{back.path}?{back.query}").location == "/me"
    assert client.get("/me").json["name"] == "Alice"

    token = client.get("/token").text
    assert userinfo(provider, token)["email"] == "alice@example.com"
    assert client.get("/token").text == token

    # changed there, and seen here with the next refresh
    changed = {"name": "Alicia", "email": "alice@example.com"}
    assert provider.put("/users/alice", json=changed).status_code == 204
    assert client.get("/renewed").json["name"] == "Alicia"
    assert client.get("/me").json["name"] == "Alicia"
    token_2 = client.get("/token").text

    real, ahead = time.time, 3590  # the token has ended, the provider does not know
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    token_3 = client.get("/token").text
    assert len({token, token_2, token_3}) == 3
    assert userinfo(provider, token_3)["name"] == "Alicia"

    id_token = client.get("/session").json["id_token"]
    caplog.set_level(logging.ERROR)
    away = client.get("/logout").location
    assert client.get("/me").status_code == 302
    # Auth0's own: /oauth/revoke for the refresh token, and /v2/logout for the browser
    assert "A refresh token was not revoked at logout: HTTPStatusError" in caplog.text
    assert urlsplit(away).path == "/v2/logout"
    assert provider.get(away).status_code == 404
    # what it has instead: RP-initiated logout, which the SDK does not use
    metadata = provider.get("/.well-known/openid-configuration").json()
    hint = {"id_token_hint": id_token, "post_logout_redirect_uri": SITE}
    page = provider.get(metadata["end_session_endpoint"], params=hint)
    assert page.status_code == 200
    assert SITE in unescape(page.text)


def test_refused_at_the_provider(provider: httpx.Client, client: FlaskClient) -> None:
    asked = client.get("/login").location
    denied = provider.post(asked, data={"action": "deny"}).headers["Location"]
    back = urlsplit(denied)
    assert parse_qs(back.query)["error"] == ["access_denied"]
    assert client.get(f"{back.path}?{back.query}").status_code == 403
    assert client.get("/me").status_code == 302


def test_revoked_at_the_provider(provider: httpx.Client, client: FlaskClient) -> None:
    asked = client.get("/login").location
    back = urlsplit(provider.post(asked, data={"sub": "alice"}).headers["Location"])
    client.get(f"{back.path}?{back.query}")
    assert provider.post("/users/alice/revoke-tokens").status_code == 204
    assert client.get("/renewed").status_code == 302  # to login: invalid_grant
    assert client.get("/me").status_code == 302
