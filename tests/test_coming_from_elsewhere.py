"""Browsers that carry cookies of an older login, at an app that moved to this one.

The apps before are those of `examples/`; what the old login left is made by Authlib and
Flask-Login themselves, and the migration is what docs/migrating.md shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from auth0_flask.tenant import Tenant
from test_drop_in import EXAMPLES, KEY, copy_example, running
from test_stores import noise
from visitor import Visitor, on_site

Visitors = Callable[..., Visitor]
#: What an access token for an API may be as long as; the old cookie has it readable.
LONG = noise(1_600)


def opened(cookie: str, key: str = KEY) -> dict[str, Any]:
    """Open a cookie as Flask does with the app's own key."""
    app = Flask(__name__)
    app.secret_key = key
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer
    return dict(serializer.loads(cookie))


def signed(session: dict[str, Any], key: str = KEY) -> str:
    """Return the cookie of a session, as the app before would have made it."""
    app = Flask(__name__)
    app.secret_key = key
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer
    return str(serializer.dumps(session))


def put(visitor: Visitor, name: str, value: str) -> None:
    visitor.http.cookies.set(name, value, "localhost.local", "/")


def ours_only(visitor: Visitor) -> bool:
    """Tell whether a browser has cookies of the new login, and no other."""
    names = set(visitor.cookies)
    return "session_auth0" in names and all(
        n.startswith("session_auth0") for n in names
    )


@pytest.fixture
def at_after(tmp_path: Path, tenant: Tenant) -> Callable[..., Any]:
    """Run an example as it is after the move."""

    @contextmanager
    def run(name: str, **more: str) -> Iterator[str]:
        folder = copy_example(f"{name}/after", tmp_path / "after")
        with running(folder, tenant, **more) as site:
            yield site

    return run


# From the Authlib quickstart


@pytest.fixture
async def old(tenant: Tenant, visitors: Visitors) -> Visitor:
    """A visitor who signed in at the quickstart's app, and is still signed in."""
    with running(EXAMPLES / "quickstart_shape" / "before", tenant) as site:
        visitor = visitors("alice", at=site)
        assert (await visitor.login()).text == "Hello, Alice!"
        await visitor.get("/login")  # and began another login, that was never finished
    kept = opened(visitor.cookies["session"])
    assert kept["user"]["access_token"]
    assert any(name.startswith("_state_auth0_") for name in kept)
    return visitor


async def test_nothing_of_the_quickstarts_login_is_left_whatever_comes_first(
    old: Visitor, at_after: Any, visitors: Visitors
) -> None:
    with at_after("quickstart_shape") as site:
        for first in ("/", "/login", "/profile", "/logout", "/callback"):
            alice = visitors("alice", at=site)
            put(alice, "session", old.cookies["session"])
            await alice.get(first)
            assert "session" not in alice.cookies

            profile = await alice.login("/profile")
            assert profile.json()["sub"] == "auth0|alice"
            assert ours_only(alice)
            assert (await alice.go("/logout")).text == "Sign in."
            assert alice.cookies == {}


async def test_an_old_tab_comes_back_to_the_callback(
    old: Visitor, at_after: Any
) -> None:
    (state,) = (
        name.removeprefix("_state_auth0_")
        for name in opened(old.cookies["session"])
        if name.startswith("_state_auth0_")
    )
    with at_after("quickstart_shape") as site:
        old.site = site
        page = await old.get(f"/callback?state={state}&code=x")
        assert page.status_code == 400
        assert "missing_transaction" in page.text
        assert (await old.login("/profile")).json()["name"] == "Alice"


async def test_the_old_logins_long_tokens_do_not_keep_the_new_one_out(
    old: Visitor, at_after: Any, tenant: Tenant
) -> None:
    """The app before asked for an audience, and its cookie is nearly full."""
    user = {**opened(old.cookies["session"])["user"], "access_token": LONG}
    put(old, "session", signed({"user": user, "cart": ["kettle"]}))
    tenant.add_user("alice", **{"https://a.example/x": noise(3_600)})
    with at_after("quickstart_shape") as site:
        old.site = site

        assert (await old.login("/profile")).json()["sub"] == "auth0|alice"

        assert opened(old.cookies["session"]) == {"cart": ["kettle"]}  # that is its own
        await old.logout()
        assert opened(old.cookies["session"]) == {"cart": ["kettle"]}


async def test_who_was_signed_in_is_nobody_until_they_sign_in_again(
    old: Visitor, at_after: Any
) -> None:
    with at_after("quickstart_shape") as site:
        old.site = site
        for headers in ({}, {"Accept": "application/json"}):
            assert (await old.get("/profile", **headers)).status_code in {302, 401}
        assert (await old.get("/")).text == "Sign in."


# From Flask-Login


@pytest.fixture
async def remembered(tenant: Tenant, visitors: Visitors) -> Visitor:
    """A visitor who signed in with "remember me", at the app before."""
    with running(EXAMPLES / "flask_login" / "before", tenant) as site:
        visitor = visitors("alice", at=site)
        form = {"name": "Alice", "password": "wonderland", "remember": "on"}
        await visitor.http.post(f"{site}/login", data=form)
        assert (await visitor.get("/reports")).text == "Reports for Alice"
    assert set(visitor.cookies) == {"session", "remember_token"}
    return visitor


async def test_nothing_of_flask_logins_login_is_left(
    remembered: Visitor, at_after: Any, visitors: Visitors
) -> None:
    both = ("session", "remember_token")
    with at_after("flask_login") as site:
        for first, names in product(
            ("/", "/login", "/reports", "/logout"), (both, both[:1], both[1:])
        ):
            alice = visitors("alice", at=site)
            for name in names:
                put(alice, name, remembered.cookies[name])
            await alice.get(first)
            assert "remember_token" not in alice.cookies
            assert (await alice.get("/")).text == "nobody"

            assert (await alice.login("/reports")).text == "Reports for Alice"
            assert ours_only(alice)
            assert (await alice.go("/logout")).text == "nobody"
            assert alice.cookies == {}
            assert not on_site(await alice.go("/reports"), site)
        program = await alice.get("/reports", Accept="application/json")
        assert program.status_code == 401


async def test_an_old_cookie_of_alice_is_not_bobs_login(
    remembered: Visitor, at_after: Any
) -> None:
    """At a shared computer: the cookie of one, the new login of another."""
    with at_after("flask_login") as site:
        remembered.site, remembered.username = site, "bob"

        assert (await remembered.login("/reports")).text == "Reports for Bob"

        await remembered.go("/logout")
        assert (await remembered.get("/")).text == "nobody"


async def test_a_cookie_that_comes_back_while_somebody_is_signed_in(
    remembered: Visitor, at_after: Any
) -> None:
    """From a backup of the browser's profile, say: one request, and it is gone."""
    token = remembered.cookies["remember_token"]
    with at_after("flask_login") as site:
        remembered.site = site
        await remembered.login("/reports")
        put(remembered, "remember_token", token)

        await remembered.get("/reports")
        assert "remember_token" not in remembered.cookies
        assert (await remembered.get("/reports")).text == "Reports for Alice"
