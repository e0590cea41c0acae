"""The login in somebody else's app: what has to change there, and what does not."""

from __future__ import annotations

import difflib
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface

import auth
from auth0_flask.tenant import Tenant
from readme_blocks import PAGES, blocks, chapter
from servers import FLASK_RUN, ROOT, free_port, serving
from visitor import Shopper, Visitor

Visitors = Callable[..., Visitor]

EXAMPLES = ROOT / "examples"
SHOP = EXAMPLES / "existing_app"
CHAPTER = PAGES["docs/existing-apps.md"]
KEY = "the secret key that the app has had all along"


def python(text: str) -> str:
    """Return the Python of a text."""
    return "\n\n".join(block.code for block in blocks("python", text=text))


def app_of_the_readme() -> str:
    """Return the app that somebody makes who follows the README."""
    return python(chapter("Put it into your app").partition("\n### ")[0])


_folder = TemporaryDirectory(prefix="packages-")  # goes with this process
#: A folder that has the package as pip would install it, and no more.
PACKAGES = _folder.name
Path(PACKAGES, "auth0_flask").symlink_to(ROOT / "auth0_flask")


def copy_example(name: str, folder: Path) -> Path:
    """Copy an example as it is afterwards, with what the README says to copy."""
    shutil.copytree(EXAMPLES / name, folder)
    shutil.copy(ROOT / "auth.py", folder)
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the shop as it is with the login."""
    return copy_example("existing_app/after", tmp_path / "shop")


@contextmanager
def running(folder: Path, tenant: Tenant, **more: str) -> Iterator[str]:
    """Run an app in its folder, where it sees nothing of this project."""
    port = free_port()
    environment = {
        **tenant.environ(redirect_uri=f"http://localhost:{port}/callback"),
        "PYTHONPATH": PACKAGES,
        "APP_SECRET_KEY": KEY,
        "FLASK_SECRET_KEY": KEY,
        "FLASK_DATABASE": f"sqlite:///{folder.parent}/shop.db",
        # for requests, which Authlib has in Flask apps
        "REQUESTS_CA_BUNDLE": tenant.ca_file,
        **more,
    }
    there = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]
    with serving([*there, *FLASK_RUN], environment, port) as server:
        yield server.site


def serializer() -> Any:
    """Return what Flask itself signs cookies with by the app's own key."""
    app = Flask(__name__)
    app.secret_key = KEY
    return SecureCookieSessionInterface().get_signing_serializer(app)


def opened(cookie: str) -> dict[str, Any]:
    """Open the app's own cookie."""
    return dict(serializer().loads(cookie))


def rows(shop: Path, query: str) -> list[Any]:
    """Ask the shop's database, which it has before and after."""
    database = sqlite3.connect(shop.parent / "shop.db")
    with closing(database) as connection, connection:
        return connection.execute(query).fetchall()


async def post(
    visitor: Visitor, path: str, *, page: str = "/", **fields: str
) -> httpx.Response:
    """Send a form of a page, with its token."""
    shown = (await visitor.get(page)).text
    [token, *_] = re.findall(r'name="csrf_token" value="([^"]+)"', shown)
    sent = {"csrf_token": token, **fields}
    return await visitor.http.post(f"{visitor.site}{path}", data=sent)


def test_few_lines_of_an_app_change_and_the_docs_show_which() -> None:
    lines: list[str] = []
    sides = SHOP / "before", SHOP / "after"
    for file in sorted([*sides[1].rglob("*.py"), *sides[1].rglob("*.html")]):
        name = file.relative_to(sides[1])
        old, new = ((side / name).read_text().splitlines() for side in sides)
        titles = f"before/{name}", f"after/{name}"
        lines += difflib.unified_diff(old, new, *titles, n=0, lineterm="")
    diff = re.sub(r"^@@ .* @@", "@@", "\n".join([*lines, ""]), flags=re.M)
    assert diff in [block.code for block in blocks("diff", text=CHAPTER)]
    added = re.findall(r"^\+(?!\+)\s*\S", diff, re.M)
    assert f"{len(added)} lines are new" in CHAPTER


# A shop with users, a session and error pages of its own


async def test_an_app_keeps_its_cart_its_forms_its_guards_and_its_error_pages(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    with running(shop, tenant) as site:
        alice, bob = visitors("alice", at=site), visitors("bob", at=site)
        await post(alice, "/cart", goods="kettle")
        for path in ("/orders/", "/checkout"):  # one is async, one sync
            assert (await bob.login(path)).url == f"{site}{path}"
        checkout = await alice.login("/checkout")
        assert checkout.url == f"{site}/checkout"
        assert "Orders of alice@example.com" in checkout.text
        assert "<li>kettle</li>" in checkout.text
        assert set(alice.cookies) == {"session", "session_auth0"}
        assert opened(alice.cookies["session"]).keys() == {"cart", "csrf_token"}

        # its forms want their token, and Auth0 needs none
        without = await alice.http.post(f"{site}/cart", data={"goods": "tea"})
        assert without.status_code == 400
        await post(alice, "/checkout", page="/checkout")
        assert "kettle" in (await alice.get("/orders/1")).text
        ending = {"logout_token": tenant.logout_token(sub="auth0|alice")}
        told = await bob.http.post(f"{site}/backchannel-logout", data=ending)
        assert told.status_code == 200, told.text
        assert "Sign in" in (await alice.get("/")).text

        await alice.login()
        await post(alice, "/cart", goods="kettle")
        gone = await alice.logout()
        assert gone.url == f"{site}/"
        assert "Cart (1)" in gone.text
        assert "Sign in" in gone.text
        assert set(alice.cookies) == {"session"}

        # its error pages, one for each
        missing, foreign = await bob.get("/nowhere"), await bob.get("/orders/1")
        rows(shop, "DELETE FROM users WHERE sub = 'auth0|bob'")
        broken = await bob.get("/orders/")  # the view goes on without its user's row
        await bob.logout()
        denied = await bob.follow(await bob.choose(await bob.start(), action="deny"))

    answers = [missing, foreign, broken, denied]
    assert [answer.status_code for answer in answers] == [404, 403, 500, 403]
    assert all("<h1>Not our cup of tea</h1>" in answer.text for answer in answers)
    assert "Auth0 did not let you in" in denied.text


async def test_its_users_keep_their_rows(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    before = shutil.copytree(SHOP / "before", shop.parent / "before")
    with running(before, tenant) as site:
        old = visitors(at=site)
        await post(old, "/login", name="al", email="alice@example.com")
        await post(old, "/cart", goods="kettle")
        await post(old, "/checkout", page="/checkout")
    for change in re.findall(r"^(?:ALTER|CREATE) .*;$", CHAPTER, re.M):
        rows(shop, change)
    rows(shop, "INSERT INTO users (name, email) VALUES ('carol', 'carol@example.com')")
    users = "SELECT name, email, sub FROM users ORDER BY id"
    carol = "carol", "carol@example.com", None

    with running(shop, tenant) as site:
        alice = visitors("alice", at=site)
        assert "kettle" in (await alice.login("/orders/")).text  # found by e-mail
        hers = "al", "alice@example.com", "auth0|alice"
        assert rows(shop, users) == [hers, carol]

        tenant.add_user("alice", name="Alicia", email="alicia@example.com")
        await alice.logout()
        assert "kettle" in (await alice.login("/orders/")).text  # found by sub
        hers = "al", "alicia@example.com", "auth0|alice"

        refused: list[dict[str, Any]] = [  # which its table cannot take
            {"email": "carol@example.com", "email_verified": False},  # has an account
            {"email": "new@example.com", "email_verified": None},
            {"name": None, "email": None, "email_verified": True},
            {"sub": "google-oauth2|1", "email": "alicia@example.com"},
        ]
        for claims in refused:
            tenant.add_user("eve", **claims)
            eve = visitors("eve", at=site)
            page = await eve.login("/orders/")
            assert page.status_code == 403, claims
            assert "Confirm your email, or sign in as before." in page.text, claims
            assert "Sign in" in (await eve.get("/")).text, claims
        assert rows(shop, users) == [hers, carol]

        tenant.add_user("eve", name=None, email="eve@example.com")
        page = await eve.login("/orders/")
        assert page.status_code == 200
        assert "kettle" not in page.text
    eves = "eve@example.com", "eve@example.com", "auth0|eve"
    assert rows(shop, users) == [hers, carol, eves]


def test_the_routes_of_the_docs_under_other_names_and_a_session_that_is_cleared(
    tenant: Tenant,
) -> None:
    code, page = app_of_the_readme(), "docs/existing-apps.md"
    code = code.replace("app.register_blueprint(auth.routes)\n", "", 1)
    names = {role: f"my_{role}" for role in ("login", "callback", "logout")}
    code = code.replace("auth.init_app(app)", f"auth.init_app(app, **{names})")
    routes = python(chapter("Write the routes yourself", page))
    routes = re.sub(r"def (login|callback|logout)\(", r"def my_\1(", routes)
    cleared = python(chapter("What happens to the app's session", page))
    made: dict[str, Any] = {"__name__": "app"}
    exec("\n\n".join([code, routes, cleared]), made)  # noqa: S102 - ours
    app: Flask = made["app"]

    @app.get("/note")
    @auth.login_required
    def note() -> Any:
        return session.setdefault("note", request.args.get("text", "nothing"))

    alice = Shopper(app)
    assert alice.client.get("/note").location == "/login?return_to=/note"
    assert alice.login("/note?text=mine").location == "/note?text=mine"
    for asked in ("/note?text=mine", "/note"):
        assert alice.client.get(asked).text == "mine"
    stale = "/callback?state=old&code=old"
    assert alice.client.get(stale).location == "/"
    assert "/v2/logout?" in alice.client.get("/logout").location
    assert not alice.client._cookies
    assert alice.client.get(stale).status_code == 400
    alice.login()
    assert alice.client.get("/note").text == "nothing"
    alice.username = "bob"  # who signs in over her, and stays signed in
    assert alice.login("/login?return_to=/note").location == "/note"
    assert alice.client.get("/note?text=bobs").text == "bobs"
