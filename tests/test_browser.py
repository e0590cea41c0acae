"""The pages in a real browser."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from auth0_flask.tenant import Tenant
from servers import FLASK_RUN, ROOT, TENANT, free_port, serving

#: An app as the README has it, and a page.
SHOP = """
from auth0_server_python import auth_types as types
from flask import Flask, redirect, request
import auth

app = Flask("shop")
auth.init_app(app)
app.register_blueprint(auth.routes)

@app.get("/")
def home():
    return auth.auth_user.get("sub", "nobody")

@app.get("/goods")
@auth.login_silently
def goods():
    return "for " + home()

@app.get("/vault")
@auth.login_required(mfa=True)
def vault():
    return "open for " + home()

@app.route("/code", methods=["GET", "POST"])
async def code():
    bob = {"email": "bob@example.com"}
    if given := request.form.get("code"):
        proof = {"connection": "email", "verification_code": given, **bob}
        options = types.VerifyPasswordlessOtpOptions(**proof)
        await auth.auth0.passwordless.verify(options)
        return redirect("/", 303)
    start = types.StartPasswordlessEmailOptions(**bob)
    await auth.auth0.passwordless.start(start)
    return "<form method=post><input name=code><button>Go on</button></form>"
"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that trusts no certificate it should not, and runs no script of ours."""
    context, complaints = browser.new_context(), list[str]()
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert not [text for text in complaints if "Security" in text]


def test_two_tabs_and_the_back_button_with_a_session_over_several_cookies(
    page: Page, site: str, tenant: Tenant
) -> None:
    noise = random.Random(1).randbytes(3200)  # noqa: S311 - the same every time
    heavy = base64.b64encode(noise).decode()
    tenant.add_user("heavy", **{"https://a.example/x": heavy})
    page.goto(f"{site}/login?return_to=/profile")
    other = page.context.new_page()
    other.goto(f"{site}/login")
    other.get_by_role("button", name="Alice").click()
    expect(other).to_have_url(f"{site}/")
    page.get_by_role("button", name="heavy").click()
    expect(page).to_have_url(f"{site}/profile")

    page.go_back()
    page.go_forward()
    expect(page.get_by_role("heading", level=1)).to_have_text("Heavy")
    names = [cookie.get("name", "") for cookie in page.context.cookies(site)]
    assert len([name for name in names if "session" in name]) == 3
    page.goto(f"{site}/logout")
    names = [cookie.get("name", "") for cookie in page.context.cookies(site)]
    assert not [name for name in names if "session" in name]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """The shop beside the tenant; its address."""
    (tmp_path / "own.py").write_text(SHOP)
    app, port = ["--app", str(tmp_path / "own.py")], free_port()
    environment = {"PYTHONPATH": str(ROOT)}
    environment["AUTH0_REDIRECT_URI"] = f"http://localhost:{port}/callback"
    command = [*TENANT, FLASK_RUN[0], *app, *FLASK_RUN[1:]]
    with serving(command, environment, port) as server:
        yield server.site


def test_an_app_of_ones_own_beside_the_tenant(page: Page, shop: str) -> None:
    """Its page for guests asks nothing, a guarded one asks for a code."""
    page.goto(f"{shop}/goods?sort=price#kettles")
    expect(page).to_have_url(f"{shop}/goods?sort=price#kettles")
    expect(page.get_by_text("for nobody")).to_be_visible()
    page.goto(f"{shop}/login")
    page.get_by_role("button", name="nobody").click()  # who has a factor afterwards
    page.goto(f"{shop}/vault?box=1")
    with page.context.expect_page() as inbox:
        page.get_by_role("link", name="see the code").click()
    page.get_by_label("Code").fill(inbox.value.locator("strong").last.inner_text())
    page.get_by_role("button", name="Continue").click()
    expect(page).to_have_url(f"{shop}/vault?box=1")
    expect(page.get_by_text("open for auth0|nobody")).to_be_visible()

    page.context.clear_cookies(name=re.compile("session"))  # as after its idle time
    page.goto(f"{shop}/goods#kettles")
    expect(page).to_have_url(f"{shop}/goods#kettles")
    expect(page.get_by_text("for auth0|nobody")).to_be_visible()


def test_a_code_that_is_mailed_signs_in(page: Page, shop: str) -> None:
    page.goto(f"{shop}/login")
    at_tenant, inbox = page.url.partition("/u/")[0], page.context.new_page()
    page.goto(f"{shop}/code")
    inbox.goto(f"{at_tenant}/u/inbox")
    page.locator("[name=code]").fill(inbox.locator("strong").last.inner_text())
    page.get_by_role("button", name="Go on").click()
    expect(page).to_have_url(f"{shop}/")
    expect(page.get_by_text("auth0|bob")).to_be_visible()


def test_an_account_at_google_is_connected_and_taken_away_again(
    page: Page, site: str, tenant: Tenant
) -> None:
    page.goto(f"{site}/profile?lang=fr")
    page.get_by_role("button", name="Alice").click()
    page.get_by_role("link", name="Gérer les comptes").click()
    page.get_by_role("button", name="Connecter Google").click()
    page.get_by_role("button", name="Allow").click()
    page.get_by_role("button", name="Retirer Google").click()
    expect(page.get_by_role("button", name="Retirer Google")).to_have_count(0)

    expect(page).to_have_url(f"{site}/accounts?lang=fr")
    assert tenant.accounts("alice") == []
    names = {cookie["name"] for cookie in page.context.cookies(site)}
    assert names == {"session_auth0", "auth0_local"}  # the tenant's
