"""Browsers that carry cookies of an older login, at an app that moved to this one.

The apps before are those of `examples/`; what the old login left is made by Authlib and
Flask-Login themselves, and the migration is what docs/migrating.md shows.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

from auth0_flask.tenant import Tenant
from test_drop_in import EXAMPLES, copy_example, opened, running, serializer
from test_stores import noise
from visitor import Visitor, on_site

Visitors = Callable[..., Visitor]


def put(visitor: Visitor, name: str, value: str) -> None:
    visitor.http.cookies.set(name, value, "localhost.local", "/")


def ours_only(visitor: Visitor) -> bool:
    """Tell whether a browser has cookies of the new login, and no other."""
    names = set(visitor.cookies)
    others = [name for name in names if not name.startswith("session_auth0")]
    return "session_auth0" in names and not others


async def test_nothing_of_the_quickstarts_login_is_left_whatever_comes_first(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    with running(EXAMPLES / "quickstart_shape" / "before", tenant) as site:
        old = visitors("alice", at=site)
        assert (await old.login()).text == "Hello, Alice!"
        await old.get("/login")  # and began another login, that was never finished
    kept = opened(session := old.cookies["session"])
    assert kept["user"]["access_token"]
    begun = [name for name in kept if name.startswith("_state_auth0_")]
    (state,) = (name.removeprefix("_state_auth0_") for name in begun)

    after = copy_example("quickstart_shape/after", tmp_path / "after")
    with running(after, tenant) as site:
        for first in ("/", "/login", "/profile", "/logout", "/callback"):
            alice = visitors("alice", at=site)
            put(alice, "session", session)
            await alice.get(first)
            assert "session" not in alice.cookies

            profile = await alice.login("/profile")
            assert profile.json()["sub"] == "auth0|alice"
            assert ours_only(alice)
            assert (await alice.go("/logout")).text == "Sign in."
            assert alice.cookies == {}

        nobody = visitors("alice", at=site)  # until they sign in again
        for headers, status in (({}, 302), ({"Accept": "application/json"}, 401)):
            put(nobody, "session", session)
            assert (await nobody.get("/profile", **headers)).status_code == status
        put(nobody, "session", session)
        assert (await nobody.get("/")).text == "Sign in."

        put(nobody, "session", session)  # an old tab comes back
        page = await nobody.get(f"/callback?state={state}&code=x")
        assert page.status_code == 400
        assert "missing_transaction" in page.text
        assert (await nobody.login("/profile")).json()["name"] == "Alice"

        # the app before asked for an audience, and its cookie is nearly full
        full, cart = visitors("alice", at=site), {"cart": ["kettle"]}
        user = {**kept["user"], "access_token": noise(1_600)}
        put(full, "session", str(serializer().dumps({"user": user, **cart})))
        tenant.add_user("alice", **{"https://a.example/x": noise(3_600)})
        assert (await full.login("/profile")).json()["sub"] == "auth0|alice"
        assert opened(full.cookies["session"]) == cart  # that is the app's own
        await full.logout()
        assert opened(full.cookies["session"]) == cart


async def test_nothing_of_flask_logins_login_is_left(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    with running(EXAMPLES / "flask_login" / "before", tenant) as site:
        old = visitors("alice", at=site)
        form = {"name": "Alice", "password": "wonderland", "remember": "on"}
        await old.http.post(f"{site}/login", data=form)
        assert (await old.get("/reports")).text == "Reports for Alice"
    kept = old.cookies
    assert set(kept) == {"session", "remember_token"}

    with running(copy_example("flask_login/after", tmp_path / "after"), tenant) as site:

        def with_cookies(names: tuple[str, ...], username: str = "alice") -> Visitor:
            visitor = visitors(username, at=site)
            for name in names:
                put(visitor, name, kept[name])
            return visitor

        both = ("session", "remember_token")
        for first, names in product(
            ("/", "/login", "/reports", "/logout"), (both, both[:1], both[1:])
        ):
            alice = with_cookies(names)
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

        bob = with_cookies(both, "bob")  # at a shared computer
        assert (await bob.login("/reports")).text == "Reports for Bob"
        await bob.go("/logout")
        assert (await bob.get("/")).text == "nobody"

        # from a backup of the browser's profile, say: one request, and it is gone
        await alice.login("/reports")
        put(alice, "remember_token", kept["remember_token"])
        await alice.get("/reports")
        assert "remember_token" not in alice.cookies
        assert (await alice.get("/reports")).text == "Reports for Alice"
