"""A pytest plugin: the tests of other projects, run on what is ours.

``ON_OURS`` names what is put in place of theirs, before their tests import it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import _pytest.compat
import _pytest.monkeypatch
import asgiref.sync
import flask
import pytest

from auth0_flask import Auth0Client, LoginError, Settings, init_app
from auth0_flask.event_loops import reuse_event_loops
from auth0_flask.stores import (
    FlaskSessionStateStore,
    FlaskSessionTransactionStore,
    Lifetime,
    SplitSessionInterface,
)

ServerClient: Any = Auth0Client.__base__
# the conftest.py of Flask was written for pytest 8
_pytest.monkeypatch.notset = _pytest.compat.NOTSET


def make_client(settings: Settings) -> Auth0Client:
    lifetime = Lifetime(domain=settings.domain, idle_seconds=600, max_seconds=600)
    return Auth0Client(
        settings,
        state_store=FlaskSessionStateStore(
            secrets=settings.secrets, scope=settings.scope, lifetime=lifetime
        ),
        transaction_store=FlaskSessionTransactionStore(secrets=settings.secrets),
    )


def loops() -> None:
    def async_to_sync(awaitable: Any = None, *, force_new_loop: bool = False) -> Any:
        if awaitable is None:
            return lambda it: async_to_sync(it, force_new_loop=force_new_loop)
        bridge: Any = reuse_event_loops(awaitable)
        assert type(bridge).__module__ == "auth0_flask.event_loops", "asgiref too old"
        bridge.force_new_loop = force_new_loop
        return bridge

    asgiref.sync.async_to_sync = async_to_sync
    flask.Flask.async_to_sync = staticmethod(async_to_sync)


def cookies() -> None:
    flask.Flask.session_interface = SplitSessionInterface(lambda value: False)


def redis() -> None:
    from redis import Redis

    from auth0_flask.stores.redis import RedisSessionInterface

    client = Redis.from_url(os.environ["REDIS_URL"])
    flask.Flask.session_interface = RedisSessionInterface(
        client, secrets=["s" * 32], seconds=600
    )


def extension() -> None:
    client, init = make_client(Settings.for_tests()), flask.Flask.__init__

    def init_with_login(app: flask.Flask, *args: Any, **options: Any) -> None:
        init(app, *args, **options)
        init_app(app, client)

    flask.Flask.__init__ = init_with_login


#: The options of the SDK's client that a setting stands for.
TAKEN = {
    *("domain", "client_id", "client_secret", "client_assertion_signing_key", "secret"),
    *("redirect_uri", "transaction_store", "state_store", "anonymous_store"),
    *("authorization_params", "pushed_authorization_requests", "organization"),
}


class StandIn(Auth0Client):
    """Our client, made as the SDK's is made, with the stores of its tests."""

    # their tests answer in the place of these methods; ours ask a `Verifier`
    _get_oidc_metadata_cached = ServerClient._get_oidc_metadata_cached
    _get_jwks_cached = ServerClient._get_jwks_cached
    _verify_and_decode_jwt = ServerClient._verify_and_decode_jwt

    def __init__(self, *values: Any, **options: Any) -> None:
        names = ("domain", "client_id", "client_secret")
        options = {**dict(zip(names, values, strict=False)), **options}
        if refused := options.keys() - TAKEN:
            pytest.skip(f"Auth0Client takes no {', '.join(sorted(refused))}")
        if not isinstance(options.get("domain"), str) or not options.get("secret"):
            pytest.skip("Settings refuses that")
        params = options.pop("authorization_params", None)
        stores = {n: options.pop(n, None) for n in tuple(options) if "_store" in n}
        secret = options.pop("secret")
        settings = Settings.for_tests().model_copy(
            update={"scope": "openid", "secrets": (secret,), **options}
        )
        ours = make_client(settings)
        super().__init__(
            settings,
            state_store=ours.sessions,
            transaction_store=stores.get("transaction_store") or ours.transactions,
        )
        self._default_authorization_params = params or {}
        self._redirect_uri = options.get("redirect_uri")
        for name, store in stores.items():
            setattr(self, f"_{name}", store)
        for part in (self._mfa_client, self._anonymous_client):
            for name, store in stores.items():
                if hasattr(part, f"_{name}"):
                    setattr(part, f"_{name}", store)
        flask.current_app.extensions["auth0"].client = self

    async def _with_oauth_client(self, url: str) -> dict[str, Any]:
        return dict(await ServerClient.complete_interactive_login(self, url, {}))

    async def start_interactive_login(self, *args: Any, **options: Any) -> str:
        with the_cause():
            return await super().start_interactive_login(*args, **options)

    async def complete_interactive_login(
        self, *args: Any, **options: Any
    ) -> dict[str, Any]:
        with the_cause():
            return await super().complete_interactive_login(*args, **options)


@contextmanager
def the_cause() -> Iterator[None]:
    """Raise the SDK's error in the place of the page that we make of it."""
    try:
        yield
    except LoginError as error:
        raise error.__cause__ or error from None


def login() -> None:
    """Nothing is put in place: there is an `auth.py` to import."""


def client() -> None:
    from auth0_server_python import auth_server
    from auth0_server_python.auth_server import server_client

    auth_server.ServerClient = server_client.ServerClient = StandIn

    @pytest.fixture(autouse=True)
    def request_of_an_app() -> Iterator[None]:
        app = init_app(flask.Flask("app"), make_client(Settings.for_tests()))
        with app.test_request_context():
            yield

    globals()["request_of_an_app"] = request_of_an_app


for name in os.environ["ON_OURS"].split(","):
    globals()[name]()
