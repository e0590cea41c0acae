"""The client: what of the SDK it leans on, and that it works in every process."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from functools import partial

import pytest
from auth0_server_python.auth_server.server_client import ServerClient
from flask import Flask

import auth
from auth import auth0
from auth0_flask import Auth0Client, Settings, SetupError
from auth0_flask.tenant import Tenant
from servers import ROOT, clean_environment

OVERRIDDEN = {
    "_get_http_client": ["self", "kwargs"],
    "_get_oidc_metadata_cached": ["self", "domain"],
    "_get_jwks_cached": ["self", "domain", "metadata"],
    "_verify_and_decode_jwt": ["self", "token", "jwks", "audience"],
}
#: All of the SDK that may send something to where discovery says.
SENDERS = {
    *("start_interactive_login", "complete_interactive_login"),
    *("get_token_by_refresh_token", "get_token_for_connection"),
}


def test_the_sdk_still_has_the_private_methods_that_we_override_and_calls_them() -> (
    None
):
    """It asks for discovery before it sends a credential, and verifies ID tokens."""
    for name, parameters in OVERRIDDEN.items():
        theirs, ours = getattr(ServerClient, name), getattr(Auth0Client, name)
        assert list(inspect.signature(theirs).parameters) == parameters
        assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(ours)
        assert theirs is not ours
        assert f"self.{name}(" in inspect.getsource(ServerClient)
    for name in SENDERS:
        sender = inspect.getsource(getattr(ServerClient, name))
        assert "self._get_oidc_metadata_cached(" in sender, name
    completes = inspect.getsource(ServerClient.complete_interactive_login)
    assert "self._verify_and_decode_jwt(" in completes


def test_the_sdk_uses_its_shared_oauth_client_for_logins_only() -> None:
    """Its connections and its token belong to whoever came last; ours stands in."""
    made = inspect.getsource(ServerClient.__init__)
    assert "self._oauth = AsyncOAuth2Client(" in made
    assert "headers=self._telemetry_headers" in made
    assert all(isinstance(value, str) for value in auth0._telemetry_headers.values())
    used = {
        name: set(re.findall(r"self\._oauth\.(\w+)", inspect.getsource(method)))
        for name, method in inspect.getmembers(ServerClient, inspect.isfunction)
        if name != "__init__"
    }
    assert {name: found for name, found in used.items() if found} == {
        "start_interactive_login": {"metadata", "create_authorization_url"},
        "complete_interactive_login": {"metadata", "fetch_token"},
    }


async def test_without_settings_every_use_says_so_but_in_tests_none() -> None:
    unset = Auth0Client(
        Settings.from_environment({}),
        state_store=auth0.sessions,
        transaction_store=auth0.transactions,
    )
    app = auth.init_app(Flask("shop"))

    missing = partial(pytest.raises, SetupError, match="AUTH0_DOMAIN")
    with app.test_request_context(), missing():
        unset.read_session()
    for use in (unset.logout, unset.get_user, unset.get_session):
        with app.test_request_context(), missing():
            await use()
    app.testing = True
    with app.test_request_context():
        assert unset.read_session() is None
        assert "tenant.auth0.invalid" in await unset.logout()


def test_what_stands_in_for_missing_settings_is_no_published_secret() -> None:
    one, other = Settings.from_environment({}), Settings.from_environment({})

    assert one.secrets != other.secrets
    assert Settings.for_tests().secrets != Settings.for_tests().secrets


#: In a process of its own: forked while other threads speak TLS, as here, a child may
#: wait for ever for a lock of OpenSSL.
_FORK = """
import multiprocessing, sys, threading
from visitor import Shopper
from with_tokens import create

def sign_in(username):
    shopper = Shopper(app, username)
    assert shopper.login().status_code == 302
    assert shopper.client.get("/api/me").json["sub"] == f"auth0|{username}"
    assert shopper.client.get("/token").status_code == 200  # refreshed

app = create()
sign_in("alice")
for thread in threading.enumerate():
    if thread.name == "auth0-refresh":
        thread.join()  # one that still verifies may hold a lock of OpenSSL
child = multiprocessing.get_context("fork").Process(target=sign_in, args=["bob"])
child.start()
child.join()
sign_in("alice")
sys.exit(child.exitcode)
"""


def test_a_forked_child_of_a_process_that_logged_somebody_in_can_do_so_too(
    tenant: Tenant,
) -> None:
    tenant.access_token_lifetime = 0
    more = {"AUTH0_SCOPE": "openid offline_access", "PYTHONPATH": "tests"}

    env = clean_environment({**tenant.environ(), **more})
    command = [sys.executable, "-c", _FORK]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
    assert tenant.count("/oauth/token") == 6


def test_an_app_without_init_app_is_told() -> None:
    app = Flask(__name__)
    app.testing = True
    app.add_url_rule("/", view_func=auth.login_required(lambda: "secret"))

    client = app.test_client()
    for use in (partial(client.get, "/"), partial(auth.login_as, client)):
        with pytest.raises(RuntimeError, match="init_app"):
            use()
