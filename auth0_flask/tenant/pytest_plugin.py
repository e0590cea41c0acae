"""A tenant for the tests of an app, as a plugin of pytest.

Load it in ``pyproject.toml``, and name the app's callback if it is another than
"http://localhost/callback", the one by which Flask's test client reaches
``/callback``::

    [tool.pytest.ini_options]
    addopts = "-p auth0_flask.tenant.pytest_plugin"
    auth0_callback = "http://localhost/account/callback"

Then the tenant runs, and the environment points to it, before pytest imports any
``conftest.py``: that may import the app at its top. In a test::

    from auth0_flask.tenant.pytest_plugin import complete_login

    from app import app

    def test_reports(tenant_user):
        tenant_user("dora", roles=["editor"])
        client = app.test_client()
        complete_login(client, username="dora")
        assert client.get("/reports").status_code == 200

``pytest_plugins = ["auth0_flask.tenant.pytest_plugin"]`` in the top ``conftest.py``
works as well, where no ``conftest.py`` imports the app at its top. An
``AUTH0_REDIRECT_URI`` in the environment wins over ``auth0_callback``.
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
_PAGE = {"Accept": "text/html"}
# The tenant's pages are plain http: what is trusted need not be read for each login.
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_tenant = Tenant()
_before: dict[str, str | None] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``auth0_callback``."""
    parser.addini("auth0_callback", "the app's callback address", default=_CALLBACK)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the tenant before any ``conftest.py``, where given by ``-p``."""
    _start(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """Start the tenant where a ``conftest.py`` has named this plugin."""
    _start(config)
    # the SDK calls its models the way of pydantic 1, also in a suite where that is
    # an error
    deprecated = "The `(dict|parse_obj)` method is deprecated"
    config.addinivalue_line("filterwarnings", f"ignore:{deprecated}:DeprecationWarning")


def _start(config: pytest.Config) -> None:
    """Start the tenant and point the environment to it, once, until pytest ends."""
    if _before:
        return
    try:
        _tenant.start()
    except ModuleNotFoundError as error:
        raise pytest.UsageError(str(error)) from error
    callback = os.environ.get("AUTH0_REDIRECT_URI") or config.getini("auth0_callback")
    environment = _tenant.environ(redirect_uri=callback)
    _before.update({name: os.environ.get(name) for name in environment})
    os.environ.update(environment)
    config.add_cleanup(_stop)


def _stop() -> None:
    """Stop the tenant and leave the environment as it was."""
    for name in _before:
        os.environ.pop(name, None)
    os.environ.update({name: v for name, v in _before.items() if v is not None})
    _before.clear()
    _tenant.stop()


@pytest.fixture
def auth0_tenant() -> Iterator[Tenant]:
    """The tenant that all tests share, reset for each test."""
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
    """Sign in with a test client, over real http, in a browser new to the tenant.

    The path begins a login, with any query, or redirects to where one begins. The test
    client cannot be used inside a running event loop, nor can this.

    Returns:
        What the app answers in the end, be it a page about what went wrong.

    Raises:
        AssertionError: If the tenant refuses in a page of its own, or the
            redirects go round in circles.
    """
    answer = client.get(path, headers=_PAGE)
    for _ in range(20):
        if not answer.location:
            return answer
        url = urljoin(answer.request.url, answer.location)
        if url.startswith(f"{_tenant.origin}/"):
            url = _sign_in(url, username)
        # The callback comes to where the client has its cookies.
        path = urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()
        answer = client.get(path, headers=_PAGE)
    raise AssertionError(f"Too many redirects, the last to {answer.request.path}")


def _sign_in(url: str, username: str) -> str:
    """Return the address that the tenant sends the browser back to."""
    with httpx.Client(verify=_TRUSTS_NOBODY, trust_env=False, headers=_PAGE) as browser:
        answer = browser.get(url)
        while answer.headers.get("location", "").startswith(f"{_tenant.origin}/u/"):
            page = httpx.URL(answer.headers["location"])
            form = {"action": "login", "username": username, **page.params}
            if page.path == "/u/factor":
                form["code"] = _tenant.otp_for(username)
            answer = browser.post(page.copy_with(query=None), data=form)
    if not answer.has_redirect_location:
        raise AssertionError(f"The tenant answers {answer.status_code}: {answer.text}")
    return answer.headers["location"]
