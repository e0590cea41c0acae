"""The login in somebody else's app: what has to change there, and what does not."""

from __future__ import annotations

import difflib
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import httpx
import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer

from auth0_flask.tenant import Tenant
from servers import FLASK_RUN, ROOT, free_port, serving
from visitor import Visitor, on_site

Visitors = Callable[..., Visitor]

EXAMPLES = ROOT / "examples"
SHOP = EXAMPLES / "existing_app"
README = (ROOT / "README.md").read_text()
CHAPTER = (ROOT / "docs/existing-apps.md").read_text()
CLEARS = CHAPTER.partition("## What happens to the app's session\n")[2]
GUARDS = README.partition("## Protect a view\n")[2].partition("\n## ")[0]
KEY = "the secret key that the app has had all along"
MIGRATION = re.findall(r"^(?:ALTER|CREATE) .*;$", CHAPTER, re.M)


def blocks(text: str, language: str) -> list[str]:
    """Return a text's code blocks in a language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.M | re.S)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in found]


def app_of_the_readme() -> str:
    """Return the app that somebody makes who follows the README."""
    chapter = README.partition("## Put it into your app\n")[2].partition("\n### ")[0]
    return "\n\n".join(blocks(chapter, "python"))


@cache
def packages() -> str:
    """Return a folder that has the package as pip would install it, and no more."""
    folder = Path(mkdtemp(prefix="packages-"))
    (folder / "auth0_flask").symlink_to(ROOT / "auth0_flask")
    return str(folder)


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
    site = f"http://localhost:{port}"
    environment = {
        **tenant.environ(redirect_uri=f"{site}/callback"),
        "PYTHONPATH": packages(),
        "APP_SECRET_KEY": KEY,
        "FLASK_SECRET_KEY": KEY,
        "FLASK_DATABASE": f"sqlite:///{database(folder)}",
        # for requests, which Authlib has in Flask apps
        "REQUESTS_CA_BUNDLE": tenant.ca_file,
        **{name: value.format(site=site) for name, value in more.items()},
    }
    there = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]
    with serving([*there, *FLASK_RUN], environment, port) as server:
        yield server.site


def database(folder: Path) -> Path:
    """Name the shop's database; before and after have the same."""
    return folder.parent / "shop.db"


def serializer() -> URLSafeTimedSerializer:
    """Return what Flask itself signs cookies with by the app's own key."""
    app = Flask(__name__)
    app.secret_key = KEY
    made = SecureCookieSessionInterface().get_signing_serializer(app)
    assert made
    return made


def opened(cookie: str) -> dict[str, Any]:
    """Open the app's own cookie."""
    return dict(serializer().loads(cookie))


def rows(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database(folder))) as connection, connection:
        return connection.execute(query).fetchall()


async def post(
    visitor: Visitor, path: str, *, page: str = "/", **fields: str
) -> httpx.Response:
    """Send a form of a page, with its token."""
    shown = (await visitor.get(page)).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', shown)
    assert token, shown
    return await visitor.http.post(
        f"{visitor.site}{path}", data={"csrf_token": token[1], **fields}
    )


def changes(example: str) -> list[str]:
    """Return what ``diff -U0`` says of an example before and after, without numbers."""
    sides = [EXAMPLES / example / side for side in ("before", "after")]
    files = [(path, side) for side in sides for path in side.rglob("*.*")]
    kinds = {".py", ".html"}
    lines: list[str] = []
    for name in sorted({p.relative_to(s) for p, s in files if p.suffix in kinds}):
        paths = [side / name for side in sides]
        old, new = (p.read_text().splitlines() if p.exists() else [] for p in paths)
        titles = (f"before/{name}", f"after/{name}")
        lines += difflib.unified_diff(old, new, *titles, n=0, lineterm="")
    return [re.sub(r"^@@ .* @@", "@@", line) for line in lines]


@pytest.mark.parametrize(
    ("example", "most"),
    [("existing_app", 45), ("quickstart_shape", 45), ("flask_login", 70)],
)
def test_few_lines_of_an_app_change(example: str, most: int) -> None:
    changed = [s for s in changes(example) if re.match(r"(?!\+\+|--)[+-]\s*\S", s)]

    assert len(changed) <= most


def test_the_readme_shows_what_is_in_the_examples() -> None:
    assert "\n".join(changes("existing_app")) + "\n" in blocks(CHAPTER, "diff")
    added = [s for s in changes("existing_app") if re.match(r"\+(?!\+)\s*\S", s)]
    assert f"{len(added)} lines are new" in CHAPTER


# A shop with users, a session and error pages of its own


async def test_an_app_keeps_its_cart_its_forms_its_guards_and_its_error_pages(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    own = "<h1>Not our cup of tea</h1>"
    with running(shop, tenant) as site:
        alice, bob = visitors("alice", at=site), visitors("bob", at=site)
        await post(alice, "/cart", goods="kettle")
        for path in ("/orders/", "/checkout"):  # one is async, one sync
            program = await alice.get(path, Accept="application/json")
            assert program.status_code == 401
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
        assert (await post(alice, "/cart", goods="tea")).status_code == 302
        assert "Cart (2)" in (await alice.get("/")).text
        await post(alice, "/checkout", page="/checkout")
        assert "tea" in (await alice.get("/orders/1")).text
        ending = {"logout_token": tenant.logout_token(sub="auth0|alice")}
        async with httpx.AsyncClient(trust_env=False) as auth0:
            told = await auth0.post(f"{site}/backchannel-logout", data=ending)
        assert told.status_code == 200, told.text
        assert "Sign in" in (await alice.get("/")).text

        await alice.login()
        await post(alice, "/cart", goods="kettle")
        gone = await alice.logout()
        assert gone.url == f"{site}/"
        assert "Cart (1)" in gone.text
        assert "Sign in" in gone.text
        assert set(alice.cookies) == {"session"}
        assert opened(alice.cookies["session"])["cart"] == ["kettle"]

        # its error pages, one for each
        missing, foreign = await bob.get("/nowhere"), await bob.get("/orders/1")
        rows(shop, "DELETE FROM users WHERE sub = 'auth0|bob'")
        broken = await bob.get("/orders/")  # the view goes on without its user's row
        await bob.logout()
        denied = await bob.follow(await bob.choose(await bob.start(), action="deny"))

    answers = [missing, foreign, broken, denied]
    assert [answer.status_code for answer in answers] == [404, 403, 500, 403]
    assert all(own in answer.text for answer in answers)
    assert "Auth0 did not let you in" in denied.text


async def test_its_users_keep_their_rows(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    users = "SELECT id, name, email, sub FROM users ORDER BY id"
    carol = (2, "carol", "carol@example.com", None)
    before = shutil.copytree(SHOP / "before", shop.parent / "before")
    with running(before, tenant) as site:
        old = visitors(at=site)
        await post(old, "/login", name="al", email="alice@example.com")
        await post(old, "/cart", goods="kettle")
        await post(old, "/checkout", page="/checkout")
    for change in MIGRATION:
        rows(shop, change)
    rows(shop, "INSERT INTO users (name, email) VALUES ('carol', 'carol@example.com')")

    with running(shop, tenant) as site:
        alice = visitors("alice", at=site)
        assert "kettle" in (await alice.login("/orders/")).text  # found by e-mail
        hers = (1, "al", "alice@example.com", "auth0|alice")
        assert rows(shop, users) == [hers, carol]

        tenant.add_user("alice", name="Alicia", email="alicia@example.com")
        await alice.logout()
        assert "kettle" in (await alice.login("/orders/")).text  # found by sub
        hers = (1, "al", "alicia@example.com", "auth0|alice")
        assert rows(shop, users) == [hers, carol]

        tenant.add_user("dora", name=None, email="dora@example.com")
        page = await visitors("dora", at=site).login("/orders/")
        assert page.status_code == 200
        assert "kettle" not in page.text
    subs = ["auth0|alice", None, "auth0|dora"]
    assert [row[3] for row in rows(shop, users)] == subs


REFUSED: list[dict[str, Any]] = [
    {"email": "carol@example.com", "email_verified": False},  # has an account
    {"email": "new@example.com", "email_verified": False},
    {"email": "new@example.com", "email_verified": None},
    {"email": None, "email_verified": None},
    {"name": None, "email": None, "email_verified": True},
    {"sub": "google-oauth2|1", "email": "alice@example.com"},
]


async def test_a_user_whom_its_table_cannot_take_is_told_so(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    with running(shop, tenant) as site:
        await visitors("alice", at=site).login()
        rows(shop, "INSERT INTO users (name, email) VALUES ('c', 'carol@example.com')")
        for number, claims in enumerate(REFUSED):
            tenant.add_user(name := f"eve{number}", **claims)
            eve = visitors(name, at=site)
            page = await eve.login("/orders/")
            assert page.status_code == 403, claims
            assert "Confirm your email, or sign in as before." in page.text, claims
            assert "Sign in" in (await eve.get("/")).text, claims
            tenant.add_user(name, email=f"{name}@example.com")
            assert (await eve.login("/orders/")).status_code == 200, claims


async def test_two_apps_in_one_process(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    (shop / "both.py").write_text(
        "from werkzeug.middleware.dispatcher import DispatcherMiddleware\n"
        "from app import create_app\n"
        "app = create_app()\n"
        "others = {'/two': create_app()}\n"
        "app.wsgi_app = DispatcherMiddleware(app.wsgi_app, others)\n"
    )
    with running(shop, tenant, FLASK_APP="both") as site:
        for path in ("/checkout", "/two/checkout"):
            visitor = visitors(at=site)
            assert (await visitor.login(path)).url == f"{site}{path}"
            for one in ("/checkout", "/two/checkout"):
                assert (await visitor.get(one)).status_code == 200

            home = await visitor.go(path.replace("checkout", "logout"))
            assert home.url == f"{site}{path.removesuffix('checkout')}"
            for one in ("/checkout", "/two/checkout"):
                assert (await visitor.get(one)).status_code == 302


# Wherever the file is


IN_A_PACKAGE = """\
from flask import Flask

from .auth import accounts, auth


def create_app():
    app = Flask(__name__)
    auth.init_app(app)
    app.register_blueprint(accounts)
    app.register_blueprint(auth.routes, url_prefix="/auth")

    @app.get("/reports")
    @auth.login_required
    async def reports():
        user = await auth.auth0.get_user()
        return f"Reports for {user['sub']}"

    return app


first = create_app()
second = create_app()
"""
ITS_AUTH = """\
from flask import Blueprint

from . import auth

accounts = Blueprint("auth", __name__, url_prefix="/auth")


@accounts.get("/settings")
@auth.login_required(redirect=False)
def settings():
    return dict(auth.auth_user)
"""


async def test_in_a_package_that_has_a_blueprint_package_called_auth(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    package = tmp_path / "myapp" / "auth"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(IN_A_PACKAGE)
    (package / "__init__.py").write_text(ITS_AUTH)
    shutil.copy(ROOT / "auth.py", package)
    more = {"FLASK_APP": "myapp:first", "AUTH0_REDIRECT_URI": "{site}/auth/callback"}

    with running(tmp_path, tenant, **more) as site:
        alice = visitors(at=site)
        assert (await alice.get("/auth/settings")).status_code == 401
        page = await alice.login("/reports?month=11")
        assert page.url == f"{site}/reports?month=11"
        assert page.text == "Reports for auth0|alice"
        settings = await alice.get("/auth/settings")
        assert settings.json()["sub"] == "auth0|alice"
        await alice.go("/auth/logout")
        assert not on_site(await alice.go("/reports"), site)


BY_HAND = """\
from flask import Blueprint, Flask, current_app, redirect, request

import auth
from auth import auth0

account = Blueprint("account", __name__, url_prefix="/account")


@account.get("/in")
def begin():
    start = current_app.ensure_sync(auth0.start_interactive_login)
    return redirect(start(auth.login_options()))


@account.get("/callback")
def back():
    complete = current_app.ensure_sync(auth0.complete_interactive_login)
    return redirect(auth.return_to(complete(request.url)))


@account.get("/out")
def out():
    return redirect(current_app.ensure_sync(auth0.logout)(auth.logout_options()))


app = Flask(__name__)
auth.init_app(app, login="account.begin", callback="account.back", logout="account.out")
app.register_blueprint(account)


@app.get("/")
@auth.login_required
def home():
    return auth.auth_user["name"]
"""


async def test_with_routes_of_its_own_in_sync_views(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    (tmp_path / "app.py").write_text(BY_HAND)
    shutil.copy(ROOT / "auth.py", tmp_path)
    callback = "{site}/account/callback"
    with running(tmp_path, tenant, AUTH0_REDIRECT_URI=callback) as site:
        alice = visitors("alice", at=site)
        redirected = await alice.get("/")
        assert redirected.headers["Location"] == "/account/in?return_to=/"

        assert (await alice.login("/")).text == "Alice"
        stale = await alice.go("/account/callback?state=old&code=old")
        assert stale.text == "Alice"

        away = await alice.get("/account/out")
        assert "/v2/logout?" in away.headers["Location"]
        assert alice.cookies == {}
        assert (await alice.get("/account/callback")).status_code == 400


# The app of the README


NOTE = """\
from flask import request

@app.get("/note")
def note():
    return session.setdefault("note", request.args.get("text", "nothing"))
"""


async def test_the_routes_of_the_readme_its_guards_and_a_session_that_is_cleared(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    text = CHAPTER.partition("## Write the routes yourself\n")[2].partition("\n## ")[0]
    code = app_of_the_readme().replace("app.register_blueprint(auth.routes)\n", "", 1)
    added = blocks(text + GUARDS + CLEARS.partition("\n## ")[0], "python")
    (tmp_path / "app.py").write_text("\n\n".join([code, *added, NOTE]))
    shutil.copy(ROOT / "auth.py", tmp_path)
    tenant.add_user("ada", **{"https://example.com/roles": ["admin"]})
    with running(tmp_path, tenant) as site:
        alice, ada = visitors("alice", at=site), visitors("ada", at=site)
        assert (await alice.get("/about")).text == "Open to all"
        assert (await alice.get("/note")).headers["Location"].startswith("/login?")
        page = await alice.login("/reports?month=11")
        assert page.url == f"{site}/reports?month=11"
        assert page.text == "Reports for auth0|alice"
        assert (await alice.get("/admin")).status_code == 403
        await alice.logout()
        assert not on_site(await alice.go("/reports"), site)

        assert (await ada.login("/admin")).text == "For admins"
        await ada.get("/note?text=mine")
        assert (await ada.get("/note")).text == "mine"
        await ada.go("/logout")
        assert ada.cookies == {}
        await ada.login()
        assert (await ada.get("/note")).text == "nothing"
