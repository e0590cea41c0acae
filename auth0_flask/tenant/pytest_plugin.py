"""A pytest plugin that runs a tenant for the tests of an app.

Load it in ``pyproject.toml``. Set ``auth0_callback`` unless the app's callback is
"http://localhost/callback", the URL of ``/callback`` for Flask's test client::

    [tool.pytest.ini_options]
    addopts = "-p auth0_flask.tenant.pytest_plugin"
    auth0_callback = "http://localhost/account/callback"

The tenant starts and the environment variables are set before pytest imports any
``conftest.py``, so a ``conftest.py`` may import the app at its top. In a test::

    from auth0_flask.tenant.pytest_plugin import complete_login

    from app import app

    def test_reports(tenant_user):
        tenant_user("dora", roles=["editor"])
        client = app.test_client()
        complete_login(client, username="dora")
        assert client.get("/reports").status_code == 200

If no ``conftest.py`` imports the app at its top, the top ``conftest.py`` can load the
plugin instead: ``pytest_plugins = ["auth0_flask.tenant.pytest_plugin"]``. An
``AUTH0_REDIRECT_URI`` in the environment overrides ``auth0_callback``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from .directory import User
from .tenant import Tenant

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

_CALLBACK = "http://localhost/callback"
_HEADERS = {"Accept": "text/html"}
# The tenant's pages are plain http, so loading CA certificates would waste time.
_NO_CA = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_tenant = Tenant()
_old_environment: dict[str, str | None] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``auth0_callback``."""
    parser.addini("auth0_callback", "the app's callback URL", default=_CALLBACK)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the tenant before any ``conftest.py``, if loaded by ``-p``."""
    _start(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """Start the tenant, if a ``conftest.py`` has loaded this plugin."""
    _start(config)
    # The SDK calls deprecated pydantic methods, and some suites make warnings errors.
    deprecated = "The `(dict|parse_obj)` method is deprecated"
    config.addinivalue_line("filterwarnings", f"ignore:{deprecated}:DeprecationWarning")


def _start(config: pytest.Config) -> None:
    """Start the tenant once and set the environment variables until pytest ends."""
    if _old_environment:
        return
    try:
        _tenant.start()
    except ModuleNotFoundError as error:
        raise pytest.UsageError(str(error)) from error
    callback = os.environ.get("AUTH0_REDIRECT_URI") or config.getini("auth0_callback")
    environment = _tenant.environ(redirect_uri=callback)
    _old_environment.update({name: os.environ.get(name) for name in environment})
    os.environ.update(environment)
    config.add_cleanup(_stop)


def _stop() -> None:
    """Stop the tenant and restore the environment."""
    for name, value in _old_environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    _old_environment.clear()
    _tenant.stop()


@pytest.fixture
def auth0_tenant() -> Iterator[Tenant]:
    """The tenant that all tests share, reset before and after each test."""
    _tenant.reset()
    yield _tenant
    _tenant.reset()


@pytest.fixture
def tenant_user(auth0_tenant: Tenant) -> Callable[..., User]:
    """Add users: ``tenant_user("dora", roles=["editor"], email="d@example.com")``."""

    def add(username: str, *, roles: Sequence[str] = (), **claims: Any) -> User:
        auth0_tenant.add_user(username, **claims)
        return auth0_tenant.change_user(username, roles=roles)

    return add


def complete_login(
    client: FlaskClient, path: str = "/login", username: str = "alice"
) -> TestResponse:
    """Sign in with a test client. The tenant sees a new browser each time, over http.

    The path starts a login or redirects to a path that does; it may have a query.
    Like the test client, this cannot run inside an event loop.

    Returns:
        The app's final response, which is its error page if the login failed.

    Raises:
        AssertionError: If the tenant shows an error page, or the redirects do not end.
    """
    response = client.get(path, headers=_HEADERS)
    for _ in range(20):
        if not response.location:
            return response
        url = urljoin(response.request.url, response.location)
        if url.startswith(f"{_tenant.origin}/"):
            url = _sign_in(url, username)
        # Without a host, the client requests its own, for which it has the cookies.
        path = urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()
        response = client.get(path, headers=_HEADERS)
    raise AssertionError(f"Too many redirects, the last to {response.request.path}")


def _sign_in(url: str, username: str) -> str:
    """Sign in at the tenant and return the URL that it redirects to."""
    with httpx.Client(verify=_NO_CA, trust_env=False, headers=_HEADERS) as browser:
        response = browser.get(url)
        while response.headers.get("location", "").startswith(f"{_tenant.origin}/u/"):
            page = httpx.URL(response.headers["location"])
            form = {"action": "login", "username": username, **page.params}
            if page.path == "/u/factor":
                form["code"] = _tenant.otp_for(username)
            response = browser.post(page.copy_with(query=None), data=form)
    if not response.has_redirect_location:
        raise AssertionError(f"Tenant error {response.status_code}: {response.text}")
    return response.headers["location"]
