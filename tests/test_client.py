"""The client: what of the SDK it leans on, and how it proves who it is."""

from __future__ import annotations

import inspect
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from auth0_server_python.auth_server.server_client import ServerClient
from cryptography.hazmat.primitives import serialization as pem
from flask import Flask

import auth
from auth import auth0
from auth0_flask import Auth0Client, LoginError, Settings, SetupError
from auth0_flask.tenant import Tenant
from auth0_flask.tenant.keys import stranger
from conftest import SITE
from shop import copy_of_auth, make_shop
from visitor import Shopper


def test_the_sdk_uses_its_shared_oauth_client_for_logins_only() -> None:
    """Its connections and its token belong to whoever came last; ours stands in."""
    used = {
        (name, found)
        for name, method in inspect.getmembers(ServerClient, inspect.isfunction)
        for found in re.findall(r"self\._oauth\.(\w+)", inspect.getsource(method))
    }
    start, complete = "start_interactive_login", "complete_interactive_login"
    assert used == {
        *((start, "metadata"), (start, "create_authorization_url")),
        *((complete, "metadata"), (complete, "fetch_token")),
    }


async def test_without_settings_every_use_says_so_but_in_tests_none() -> None:
    missing = Settings.from_environment({})
    client = Auth0Client(
        missing, state_store=auth0.sessions, transaction_store=auth0.transactions
    )
    app = auth.init_app(Flask("shop"))

    told = partial(pytest.raises, SetupError, match="AUTH0_DOMAIN")
    with app.test_request_context(), told():
        client.read_session()
    for use in (client.logout, client.get_user, client.get_session):
        with app.test_request_context(), told():
            await use()
    with app.test_request_context(), pytest.raises(LoginError, match="not set up"):
        await client.complete_interactive_login("/callback?state=a&code=b")
    app.testing = True
    with app.test_request_context():
        assert client.read_session() is None
        assert "tenant.auth0.invalid" in await client.logout()


def test_what_stands_in_for_the_secret_is_none_that_was_published() -> None:
    for make in (partial(Settings.from_environment, {}), Settings.for_tests):
        assert make().secrets != make().secrets


def test_an_app_without_init_app_is_told() -> None:
    app = Flask(__name__)
    app.testing = True
    app.add_url_rule("/", view_func=auth.login_required(lambda: "secret"))

    client = app.test_client()
    for use in (partial(client.get, "/"), partial(auth.login_as, client)):
        with pytest.raises(RuntimeError, match="init_app"):
            use()


def test_two_set_ups_of_one_app_are_told_and_what_is_left_of_version_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "login").mkdir()
    (tmp_path / "login" / "one_loop.py").touch()
    app = auth.init_app(Flask("shop", root_path=str(tmp_path)))
    assert "login/ and stores/ of version 1.0 are still in this app" in caplog.text
    for again, told in ((auth, "called twice"), (copy_of_auth({}), "Another auth.py")):
        with pytest.raises(RuntimeError, match=told):
            again.init_app(app)


def pem_of(key: Any) -> str:
    public: bytes = key.public_key().public_bytes(
        pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo
    )
    return public.decode()


def test_by_a_key_it_logs_in_refreshes_and_logs_out(tenant: Tenant) -> None:
    key, form = stranger(), pem.Encoding.PEM
    private = key.private_bytes(form, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    tenant.client_public_key = pem_of(key)
    tenant.require_pushed_authorization_requests = True
    environment = {
        **tenant.environ(f"{SITE}/callback"),
        "AUTH0_CLIENT_SECRET": "",
        "AUTH0_CLIENT_ASSERTION_SIGNING_KEY": private.decode(),
        "AUTH0_PUSHED_AUTHORIZATION_REQUESTS": "true",
    }
    auth = copy_of_auth(environment)
    shop, auth0 = make_shop(auth), auth.auth0

    async def tokens() -> str:
        await auth0.get_access_token(audience="https://api.tenant.example/")
        await auth0.get_access_token_for_connection({"connection": "github"})
        return str(auth0.read_session()["refresh_token"])

    shop.add_url_rule("/tokens", view_func=tokens)
    alice = Shopper(shop)
    assert alice.login("/login?return_to=/tokens").location == "/tokens"
    token = alice.client.get("/tokens").text
    assert tenant.directory.refresh_tokens.grant(token)
    alice.client.get("/logout")

    assert not alice.client._cookies
    assert tenant.count("/oauth/par") == tenant.count("/oauth/revoke") == 1
    assert tenant.directory.refresh_tokens.grant(token) is None

    tenant.client_public_key = pem_of(tenant.keys.current.private)
    assert "client_refused" in alice.client.get("/login").text
