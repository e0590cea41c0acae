"""The client: what of the SDK it leans on, and that nothing was left out."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from flask import Flask

from auth import Settings, SetupError, auth0, build_client
from login.client import Auth0Client
from login.loops import network
from login.sdk import ServerClient

PUBLIC_COROUTINES = [
    name
    for name, _ in inspect.getmembers(ServerClient, inspect.iscoroutinefunction)
    if not name.startswith("_")
]


def test_the_sdk_still_has_the_private_names_that_we_need() -> None:
    """`_verify_and_decode_jwt` is what verifies every token; the rest it uses."""
    signature = inspect.signature(ServerClient._verify_and_decode_jwt)
    source = inspect.getsource(ServerClient.complete_interactive_login)

    assert list(signature.parameters) == ["self", "token", "jwks", "audience"]
    assert "self._verify_and_decode_jwt(" in source
    assert inspect.iscoroutinefunction(ServerClient._get_jwks_cached)
    assert callable(ServerClient._normalize_url)
    assert auth0._discovery_cache is not None


@pytest.mark.parametrize("name", PUBLIC_COROUTINES)
def test_whatever_may_reach_the_network_is_wrapped(name: str) -> None:
    stays = name in {"get_user", "get_session"}
    ours = getattr(Auth0Client, name) is not getattr(ServerClient, name)

    assert ours != stays


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
    with app.test_request_context(), pytest.raises(SetupError, match="AUTH0_DOMAIN"):
        await unset.logout()
    app.testing = True
    with app.test_request_context():
        assert unset.read_session() is None
        assert "tenant.auth0.invalid" in await unset.logout()


def test_an_app_without_init_app_is_told() -> None:
    from auth import login_required

    app = Flask(__name__)
    app.testing = True
    app.add_url_rule("/", view_func=login_required(lambda: "secret"))

    with pytest.raises(RuntimeError, match="init_app"):
        app.test_client().get("/")
