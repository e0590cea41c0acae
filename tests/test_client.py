"""The client: what of the SDK it leans on, and that nothing was left out."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing

import pytest
from flask import Flask

import auth
from auth import Settings, SetupError, auth0, build_client, kept_loops
from auth0_flask.tenant import Tenant
from login.client import Auth0Client
from login.loops import network
from login.sdk import ServerClient
from visitor import Visitor

PUBLIC_COROUTINES = [
    name
    for name, _ in inspect.getmembers(ServerClient, inspect.iscoroutinefunction)
    if not name.startswith("_")
]


def test_the_sdk_still_has_the_private_names_that_we_need() -> None:
    """What verifies tokens and what discovers are overridden, and use the rest."""
    signature = inspect.signature(ServerClient._verify_and_decode_jwt)
    source = inspect.getsource(ServerClient.complete_interactive_login)

    assert list(signature.parameters) == ["self", "token", "jwks", "audience"]
    assert "self._verify_and_decode_jwt(" in source
    assert inspect.iscoroutinefunction(ServerClient._get_jwks_cached)
    assert inspect.iscoroutinefunction(ServerClient._get_oidc_metadata_cached)
    # what it is for: whoever sends a credential has asked it where to
    for sender in (
        ServerClient.start_interactive_login,
        ServerClient.complete_interactive_login,
        ServerClient.get_token_by_refresh_token,
        ServerClient.get_token_for_connection,
    ):
        assert "self._get_oidc_metadata_cached(" in inspect.getsource(sender)
    assert callable(ServerClient._normalize_url)
    assert auth0._discovery_cache is not None


@pytest.mark.parametrize("name", PUBLIC_COROUTINES)
def test_whatever_may_reach_the_network_is_wrapped(name: str) -> None:
    assert getattr(Auth0Client, name) is not getattr(ServerClient, name)


async def test_the_sdk_calling_itself_stays_on_the_network_loop() -> None:
    async def call() -> bool:
        with pytest.raises(Exception, match="refresh_token"):
            await auth0.get_token_by_refresh_token({})
        return network.is_running_here()

    assert await asyncio.wait_for(network.run(call()), 10)


async def test_without_settings_every_use_says_so_but_in_tests_none() -> None:
    unset = build_client(Settings.from_environment({}))
    app = Flask(__name__)
    app.secret_key = "x"

    with app.test_request_context(), pytest.raises(SetupError, match="AUTH0_DOMAIN"):
        unset.read_session()
    for use in (unset.logout, unset.get_user, unset.get_session):
        with (
            app.test_request_context(),
            pytest.raises(SetupError, match="AUTH0_DOMAIN"),
        ):
            await use()
    app.testing = True
    with app.test_request_context():
        assert unset.read_session() is None
        assert "tenant.auth0.invalid" in await unset.logout()


def test_what_stands_in_for_missing_settings_is_no_published_secret() -> None:
    one, other = Settings.from_environment({}), Settings.from_environment({})

    assert one.secrets != other.secrets
    assert Settings.for_tests().secrets != Settings.for_tests().secrets


def _log_in_a_child(answers: multiprocessing.Queue[str], app: Flask, url: str) -> None:
    client = app.test_client()
    auth.login_as(client)
    with app.test_request_context("/login"):
        started = kept_loops(auth0.start_interactive_login)()
    answers.put(started[: len(url)])
    with app.test_request_context("/"):
        try:
            kept_loops(auth0.get_token_by_refresh_token)({"refresh_token": "unknown"})
        except Exception as error:
            answers.put(getattr(error, "code", type(error).__name__))


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
async def test_a_forked_child_of_a_process_that_logged_somebody_in_can_do_so_too(
    alice: Visitor, app: Flask, tenant: Tenant
) -> None:
    await alice.login()
    before = auth0._oauth
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=_log_in_a_child, args=(answers, app, tenant.origin))
    await asyncio.to_thread(child.start)

    assert await asyncio.to_thread(answers.get, timeout=20) == tenant.origin
    assert await asyncio.to_thread(answers.get, timeout=20) == "invalid_grant"
    await asyncio.to_thread(child.join, 10)
    assert auth0._oauth is before  # the parent keeps its own
    await alice.login()
    assert await alice.claims()


def test_an_app_without_init_app_is_told() -> None:
    from auth import login_required

    app = Flask(__name__)
    app.testing = True
    app.add_url_rule("/", view_func=login_required(lambda: "secret"))

    with pytest.raises(RuntimeError, match="init_app"):
        app.test_client().get("/")
