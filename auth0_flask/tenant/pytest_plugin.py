"""A tenant for the tests of an app, as a plugin of pytest.

In the ``conftest.py`` of the tests::

    pytest_plugins = ["auth0_flask.tenant.pytest_plugin"]

    @pytest.fixture(scope="session")
    def app():
        from app import create_app

        return create_app({"TESTING": True})

and in a test::

    from auth0_flask.tenant.pytest_plugin import complete_login

    def test_reports(app, tenant_user):
        tenant_user("dora", roles=["editor"])
        client = app.test_client()
        complete_login(client, username="dora")
        assert client.get("/reports").status_code == 200

The tenant starts before any test module is imported, and the variables that
point an app to it are in the environment from then on: an ``auth`` module
that reads them when imported has to be imported by a test module or, as
above, in a fixture, not at the top of ``conftest.py``.

``AUTH0_REDIRECT_URI`` stays what the environment has; without, it is
"http://localhost/callback", where Flask's test client is at home.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from auth0_flask.tenant.grant import User
from auth0_flask.tenant.tenant import Tenant

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

#: The claim that ``tenant_user`` puts roles into.
ROLES = "https://example.com/roles"

_CALLBACK = "http://localhost/callback"
_PAGE = {"Accept": "text/html"}
_MOST_REDIRECTS = 20

_tenant = Tenant()
_before: dict[str, str | None] = {}


def pytest_configure() -> None:
    """Start the tenant and point the environment to it."""
    _tenant.start()
    callback = os.environ.get("AUTH0_REDIRECT_URI", _CALLBACK)
    environment = _tenant.environ(redirect_uri=callback)
    _before.update({name: os.environ.get(name) for name in environment})
    os.environ.update(environment)


def pytest_unconfigure() -> None:
    """Stop the tenant and leave the environment as it was."""
    _restore(_before)
    _before.clear()
    _tenant.stop()


@pytest.fixture
def auth0_tenant() -> Iterator[Tenant]:
    """The tenant that all tests share, without what another test asked of it."""
    _tenant.reset()
    yield _tenant
    _tenant.reset()


@pytest.fixture
def tenant_user(auth0_tenant: Tenant) -> Callable[..., User]:
    """Add users: ``tenant_user("dora", roles=["editor"], email="d@example.com")``.

    Any claim can be given by its name, and None leaves one of the usual out.
    Roles go into the claim "https://example.com/roles", which an Action would
    set at Auth0; without any, there is no such claim.
    """

    def add(username: str, *, roles: Sequence[str] = (), **claims: Any) -> User:
        granted = {ROLES: list(roles)} if roles else {}
        return auth0_tenant.add_user(username, **granted, **claims)

    return add


def complete_login(
    client: FlaskClient, path: str = "/login", username: str = "alice"
) -> TestResponse:
    """Sign in with a test client, over real http at the tenant.

    The test client cannot be used inside a running event loop, nor can this.

    Args:
        client: A test client of the app, with cookies.
        path: The page to start at: the one that begins a login, with any query,
            or a page that redirects there.
        username: The user at the tenant, whose browser is new to it each time.

    Returns:
        What the app answers in the end, be it a page about what went wrong.

    Raises:
        AssertionError: If the tenant refuses in a page of its own, or the
            redirects go round in circles.
    """
    answer = client.get(path, headers=_PAGE)
    for _ in range(_MOST_REDIRECTS):
        if not answer.location:
            return answer
        url = urljoin(answer.request.url, answer.location)
        if url.startswith(_tenant.origin):
            url = _sign_in(url, username)
        # The callback comes to where the client has its cookies.
        answer = client.get(_path_and_query(url), headers=_PAGE)
    raise AssertionError(f"Too many redirects, the last to {answer.request.path}")


def _sign_in(url: str, username: str) -> str:
    """Return the address that the tenant sends the browser back to."""
    with httpx.Client(trust_env=False, headers=_PAGE) as browser:
        answer = browser.get(url)
        if answer.has_redirect_location and answer.next_request:
            page = answer.next_request.url
            if not str(page).startswith(f"{_tenant.origin}/u/login"):
                return str(page)
            form = {"action": "login", "username": username}
            form["state"] = page.params["state"]
            answer = browser.post(page.copy_with(query=None), data=form)
    if not answer.has_redirect_location:
        raise AssertionError(f"The tenant answers {answer.status_code}: {answer.text}")
    return answer.headers["location"]


def _path_and_query(url: str) -> str:
    return urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()


def _restore(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
