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
from visitor import Visitor

Visitors = Callable[..., Visitor]


def has_ours_only(visitor: Visitor) -> bool:
    """Tell whether a browser has cookies of the new login, and no other."""
    return {name.partition("_tx")[0] for name in visitor.cookies} == {"session_auth0"}


def put(visitor: Visitor, name: str, value: str) -> None:
    visitor.http.cookies.set(name, value, "localhost.local", "/")


async def test_nothing_of_the_quickstarts_login_is_left_whatever_comes_first(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    with running(EXAMPLES / "quickstart_shape" / "before", tenant) as site:
        old = visitors("alice", at=site)
        assert (await old.login()).text == "Hello, Alice!"
        await old.get("/login")  # and began another login, that was never finished
    kept = opened(session := old.cookies["session"])
    assert kept["user"]["access_token"]
    [begun] = [name for name in kept if name.startswith("_state_auth0_")]
    stale = f"/callback?state={begun.removeprefix('_state_auth0_')}&code=x"

    after = copy_example("quickstart_shape/after", tmp_path / "after")
    with running(after, tenant) as site:
        firsts = {"/": 200, "/login": 302, "/profile": 302, "/logout": 302, stale: 400}
        for first, status in firsts.items():
            alice = visitors("alice", at=site)
            put(alice, "session", session)
            answer = await alice.get(first)
            assert answer.status_code == status
            assert "Alice" not in answer.text
            assert "session" not in alice.cookies

            profile = await alice.login("/profile")
            assert profile.json()["sub"] == "auth0|alice"
            assert has_ours_only(alice)
            assert (await alice.go("/logout")).text == "Sign in."
            assert alice.cookies == {}

        # the app before asked for an audience, and its cookie is nearly full
        full, cart = visitors("alice", at=site), {"cart": ["kettle"]}
        user = {**kept["user"], "access_token": noise(1_600)}
        put(full, "session", serializer().dumps({"user": user, **cart}))
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
        sets = [*kept], ["session"], ["remember_token"]
        for first, names in product(("/", "/login", "/reports", "/logout"), sets):
            who = "alice" if names[1:] else "bob"  # at a shared computer
            visitor = visitors(who, at=site)
            for name in names:
                put(visitor, name, kept[name])
            await visitor.get(first)
            assert "remember_token" not in visitor.cookies
            assert (await visitor.get("/")).text == "nobody"

            page = await visitor.login("/reports")
            assert page.text == f"Reports for {who.title()}"
            assert has_ours_only(visitor)
            assert (await visitor.go("/logout")).text == "nobody"
            assert visitor.cookies == {}

        # from a backup of the browser's profile, say: one request, and it is gone
        await visitor.login("/reports")
        put(visitor, "remember_token", kept["remember_token"])
        await visitor.get("/reports")
        assert "remember_token" not in visitor.cookies
        assert (await visitor.get("/reports")).text == "Reports for Bob"
