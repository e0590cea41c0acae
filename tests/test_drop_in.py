"""The login in somebody else's app: what has to change there, and what does not."""

from __future__ import annotations

import difflib
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from playwright.sync_api import Page, expect, sync_playwright

from auth0_flask.tenant import Tenant
from servers import FLASK_RUN, ROOT, free_port, serving
from services import path_of
from visitor import Visitor, on_site

Visitors = Callable[..., Visitor]

EXAMPLES = ROOT / "examples"
BEFORE = EXAMPLES / "existing_app" / "before"
AFTER = EXAMPLES / "existing_app" / "after"
README = (ROOT / "README.md").read_text()
CHAPTER = README.partition("## In an app you have\n")[2].partition("\n## ")[0]
GUARDS = README.partition("## Protect a view\n")[2].partition("\n## ")[0]
KEY = "the secret key that the shop has had all along"
MIGRATION = re.findall(r"^(?:ALTER|CREATE) .*;$", CHAPTER, re.M)
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def blocks(text: str, language: str) -> list[str]:
    """Return a text's code blocks in a language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.M | re.S)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in found]


def app_of_the_readme() -> str:
    """Return the app that somebody makes who follows the README."""
    chapter = README.partition("## Put it into your app\n")[2].partition("\n### ")[0]
    return "\n\n".join(blocks(chapter, "python"))


def copy_login(folder: Path, *, name: str = "auth.py") -> None:
    """Copy what the README says is to be copied."""
    shutil.copy(ROOT / "auth.py", folder / name)
    for part in ("login", "stores"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the shop as it is with the login."""
    folder = shutil.copytree(AFTER, tmp_path / "shop")
    copy_login(folder)
    return folder


@contextmanager
def running(
    folder: Path, tenant: Tenant, *, callback: str = "/callback", **more: str
) -> Iterator[str]:
    """Run an app in its folder, where it sees nothing of this project."""
    port = free_port()
    environment = {
        **tenant.environ(redirect_uri=f"http://localhost:{port}{callback}"),
        "PYTHONPATH": "",
        "FLASK_SECRET_KEY": KEY,
        "FLASK_DATABASE": f"sqlite:///{database(folder)}",
        **more,
    }
    there = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]
    with serving([*there, *FLASK_RUN], environment, port) as server:
        yield server.site


def database(folder: Path) -> Path:
    """Name the shop's database; before and after have the same."""
    return folder.parent / "shop.db"


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


def changes() -> list[str]:
    """Return what ``diff -U0`` says of the shop before and after, without numbers."""
    files = [p for p in sorted(AFTER.rglob("*.*")) if p.suffix in {".py", ".html"}]
    lines: list[str] = []
    for after in files:
        name = after.relative_to(AFTER)
        before, names = BEFORE / name, (f"before/{name}", f"after/{name}")
        old = before.read_text().splitlines() if before.exists() else []
        new = after.read_text().splitlines()
        lines += difflib.unified_diff(old, new, *names, n=0, lineterm="")
    return [re.sub(r"^@@ .* @@", "@@", line) for line in lines]


def test_fewer_than_25_lines_are_added_to_an_app() -> None:
    added = [s for s in changes() if s.startswith("+") and not s.startswith("+++")]

    assert len(added) < 25
    assert f"{len(added)} lines are new" in CHAPTER


def test_the_readme_shows_what_is_in_the_examples() -> None:
    assert "\n".join(changes()) + "\n" in blocks(CHAPTER, "diff")
    shown = blocks(CHAPTER, "py")
    sources = [path.read_text() for path in EXAMPLES.rglob("*.py")]
    assert len(shown) == 3
    for code in shown:
        assert any(code in source for source in sources), code


async def test_an_app_keeps_its_cart_its_key_and_its_session(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    with running(shop, tenant) as site:
        alice = visitors("alice", at=site)
        await post(alice, "/cart", goods="kettle")

        checkout = await alice.login("/checkout")
        assert checkout.url == f"{site}/checkout"
        assert "<li>kettle</li>" in checkout.text
        assert list(alice.cookies) == ["session"]
        assert _opened(alice.cookies["session"])["cart"] == ["kettle"]
        gone = await alice.logout()

    assert gone.url == f"{site}/"
    assert "Cart (1)" in gone.text
    assert "Sign in" in gone.text
    assert _opened(alice.cookies["session"]).keys() == {"cart", "csrf_token"}


def _opened(cookie: str) -> dict[str, Any]:
    """Open a cookie as Flask itself does with the app's own key."""
    app = Flask(__name__)
    app.secret_key = KEY
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer
    session: dict[str, Any] = serializer.loads(cookie)
    return session


async def test_its_forms_still_want_their_token(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    with running(shop, tenant) as site:
        alice = visitors("alice", at=site)
        await alice.login()

        without = await alice.http.post(f"{site}/cart", data={"goods": "tea"})
        assert without.status_code == 400
        assert "Cart (0)" in (await alice.get("/")).text
        assert (await post(alice, "/cart", goods="tea")).status_code == 302
        assert "Cart (1)" in (await alice.get("/")).text


async def test_its_error_pages_are_its_own(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    own = "<h1>Not our cup of tea</h1>"
    with running(shop, tenant) as site:
        alice, bob = visitors("alice", at=site), visitors("bob", at=site)
        await alice.login()
        await bob.login()
        await post(alice, "/cart", goods="tea")
        await post(alice, "/checkout", page="/checkout")

        assert "tea" in (await alice.get("/orders/1")).text
        missing, foreign = await bob.get("/nowhere"), await bob.get("/orders/1")
        assert (missing.status_code, own in missing.text) == (404, True)
        assert (foreign.status_code, own in foreign.text) == (403, True)
        rows(shop, "DELETE FROM users WHERE sub = 'auth0|bob'")
        broken = await bob.get("/orders/")  # the view goes on without its user's row
        assert (broken.status_code, own in broken.text) == (500, True)
        await bob.logout()
        denied = await bob.follow(await bob.choose(await bob.start(), action="deny"))

    assert (denied.status_code, own in denied.text) == (403, True)
    assert "Auth0 did not let you in" in denied.text


async def test_its_views_of_both_kinds_are_guarded(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    with running(shop, tenant) as site:
        for path in ("/checkout", "/orders/"):  # one is sync, one async
            visitor = visitors(at=site)
            turned_away = await visitor.get(path)
            program = await visitor.get(path, Accept="application/json")
            assert turned_away.headers["Location"] == f"/login?return_to={path}"
            assert program.status_code == 401
            page = await visitor.login(path)
            assert page.url == f"{site}{path}"
            assert "Orders of Alice" in page.text


async def test_its_users_keep_their_rows(
    shop: Path, tenant: Tenant, visitors: Visitors
) -> None:
    users = "SELECT id, name, email, sub FROM users ORDER BY id"
    carol = (2, "carol", "carol@example.com", None)
    before = shutil.copytree(BEFORE, shop.parent / "before")
    with running(before, tenant) as site:
        old = visitors(at=site)
        email = "alice@example.com"
        await post(old, "/login", page="/login", username="al", email=email)
        await post(old, "/cart", goods="kettle")
        await post(old, "/checkout", page="/checkout")
    for change in MIGRATION:
        rows(shop, change)
    rows(shop, "INSERT INTO users (name, email) VALUES ('carol', 'carol@example.com')")

    with running(shop, tenant) as site:
        alice = visitors("alice", at=site)
        assert "kettle" in (await alice.login("/orders/")).text  # found by e-mail
        hers = (1, "Alice", "alice@example.com", "auth0|alice")
        assert rows(shop, users) == [hers, carol]

        tenant.add_user("alice", name="Alicia", email="alicia@example.com")
        await alice.logout()
        assert "kettle" in (await alice.login("/orders/")).text  # found by sub
        hers = (1, "Alicia", "alicia@example.com", "auth0|alice")
        assert rows(shop, users) == [hers, carol]

        tenant.add_user("eve", email="carol@example.com", email_verified=False)
        tenant.add_user("eva", email="alicia@example.com")
        tenant.add_user("noname", name=None, email=None, email_verified=None)
        for name in ("eve", "eva", "noname"):
            page = await visitors(name, at=site).login("/orders/")
            assert page.status_code == 200
            assert "kettle" not in page.text

    subs = ["auth0|alice", None, "auth0|eve", "auth0|eva", "auth0|noname"]
    assert [row[3] for row in rows(shop, users)] == subs


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
            page = await visitor.login(path)
            assert page.url == f"{site}{path}"
            assert "Orders of Alice" in page.text
            for one in ("/checkout", "/two/checkout"):
                assert (await visitor.get(one)).status_code == 200

            home = await visitor.go(path.replace("checkout", "logout"))
            assert home.url == f"{site}{path.removesuffix('checkout')}"
            for one in ("/checkout", "/two/checkout"):
                assert (await visitor.get(one)).status_code == 302


async def _goes_all_the_way(visitor: Visitor) -> None:
    """See that the README's app signs somebody in and out."""
    page = await visitor.login("/reports?month=11")
    assert page.url == f"{visitor.site}/reports?month=11"
    assert page.text == "Reports for auth0|alice"
    await visitor.logout()
    assert not on_site(await visitor.go("/reports"), visitor.site)


async def test_inside_a_package(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    package = tmp_path / "mypkg"
    package.mkdir()
    copy_login(package)
    source = (package / "auth.py").read_text()
    ours = re.compile(r"^( *from )(?=(?:login|stores)\b)", re.M)
    (package / "auth.py").write_text(ours.sub(r"\1.", source))
    assert f"its {len(ours.findall(source))} lines that begin with" in CHAPTER
    (package / "__init__.py").touch()
    code = app_of_the_readme().replace("import auth\n", "from . import auth\n", 1)
    (package / "app.py").write_text(code.replace("from auth", "from .auth", 1))

    with running(tmp_path, tenant, FLASK_APP="mypkg.app") as site:
        await _goes_all_the_way(visitors(at=site))


async def test_under_another_name(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    copy_login(tmp_path, name="sso.py")
    code = app_of_the_readme().replace("import auth\n", "import sso as auth\n", 1)
    (tmp_path / "app.py").write_text(code.replace("from auth", "from sso", 1))

    with running(tmp_path, tenant) as site:
        await _goes_all_the_way(visitors(at=site))


async def test_in_the_shape_of_the_quickstart(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    folder = shutil.copytree(EXAMPLES / "quickstart_shape", tmp_path / "quickstart")
    copy_login(folder)
    with running(folder, tenant, callback="/auth/callback") as site:
        alice = visitors("alice", at=site)
        turned_away = await alice.get("/profile")
        assert turned_away.headers["Location"] == "/auth/login?return_to=/profile"

        profile = await alice.login("/profile")
        assert profile.url == f"{site}/profile"
        assert profile.json()["sub"] == "auth0|alice"
        assert (await alice.get("/")).text == "Hello, Alice!"
        stale = await alice.go("/auth/callback?state=old&code=old")
        assert stale.text == "Hello, Alice!"

        home = await alice.go("/auth/logout")
        assert home.url == f"{site}/"
        assert home.text == "Sign in."
        assert alice.cookies == {}
        assert (await alice.get("/auth/callback")).status_code == 400


async def test_beside_flask_login(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    shutil.copy(EXAMPLES / "flask_login_app.py", tmp_path / "app.py")
    copy_login(tmp_path)
    with running(tmp_path, tenant) as site:
        alice = visitors("alice", at=site)
        assert (await alice.get("/")).text == "nobody"
        program = await alice.get("/reports", Accept="application/json")
        assert program.status_code == 401

        reports = await alice.login("/reports?month=11")
        assert reports.url == f"{site}/reports?month=11"
        assert reports.text == "Reports for Alice"
        assert (await alice.get("/")).text == "Alice"

        assert (await alice.go("/logout")).text == "nobody"
        assert alice.cookies == {}
        assert not on_site(await alice.go("/reports"), site)


async def test_roles_public_views_and_a_session_that_is_cleared(
    tmp_path: Path, tenant: Tenant, visitors: Visitors
) -> None:
    copy_login(tmp_path)
    note = """\
@app.get("/note")
def note():
    return session.setdefault("note", request.args.get("text", "nothing"))
"""
    code = [app_of_the_readme(), *blocks(GUARDS + CHAPTER, "python"), note]
    (tmp_path / "app.py").write_text("\n\n".join(code))
    tenant.add_user("ada", **{"https://example.com/roles": ["admin"]})
    with running(tmp_path, tenant) as site:
        alice, ada = visitors("alice", at=site), visitors("ada", at=site)
        assert (await alice.get("/about")).text == "Open to all"
        assert (await alice.get("/note")).headers["Location"].startswith("/login?")

        assert (await alice.login("/admin")).status_code == 403
        assert (await ada.login("/admin")).text == "For admins"
        await ada.get("/note?text=mine")
        assert (await ada.get("/note")).text == "mine"
        await ada.go("/logout")
        assert ada.cookies == {}
        await ada.login()
        assert (await ada.get("/note")).text == "nothing"


@pytest.fixture
def page() -> Iterator[Page]:
    """A page in Chromium, as the machine has it."""
    chromium = path_of("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
        # signing out passes through the tenant's TLS port
        yield browser.new_page(ignore_https_errors=True)
        browser.close()


def test_an_app_of_nothing_but_the_lines_in_the_readme(
    tmp_path: Path, tenant: Tenant, page: Page
) -> None:
    copy_login(tmp_path)
    (tmp_path / "app.py").write_text(app_of_the_readme())
    with running(tmp_path, tenant) as site:
        page.goto(f"{site}/reports")
        page.get_by_role("button", name="Alice").click()
        expect(page).to_have_url(f"{site}/reports")
        expect(page.get_by_text("Reports for auth0|alice")).to_be_visible()
        page.reload()
        expect(page.get_by_text("Reports for auth0|alice")).to_be_visible()

        page.goto(f"{site}/logout")
        expect(page).to_have_url(f"{site}/")
        assert page.context.cookies(site) == []
        page.goto(f"{site}/reports")
        expect(page.get_by_role("button", name="Alice")).to_be_visible()
