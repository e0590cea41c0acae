"""The stand-in for Auth0 in use: its environment, its command, its pytest plugin."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from auth0_flask.tenant import Tenant
from servers import ROOT, clean_environment, free_port

# The environment


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "localhost,127.0.0.1"),
        ({"NO_PROXY": "intranet.example"}, "intranet.example,localhost,127.0.0.1"),
        ({"no_proxy": "a, localhost"}, "a,localhost,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_the_environment_names_the_tenant_as_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = Tenant().environ()
    assert environment["NO_PROXY"] == environment["no_proxy"] == expected


def run_with_tenant(
    *command: str, more: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m auth0_flask.tenant`` where ``.env`` is read as usual."""
    environment = clean_environment({"PYTHONPATH": str(ROOT), **(more or {})})
    for name in ("PYTHON_DOTENV_DISABLED", "FLASK_SKIP_DOTENV"):
        del environment[name]
    return subprocess.run(
        [sys.executable, "-m", "auth0_flask.tenant", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


DOTENV = """
AUTH0_DOMAIN=theirs.eu.auth0.com
AUTH0_CLIENT_ID=theirs
AUTH0_CLIENT_SECRET=theirs
AUTH0_SECRET=theirs-of-32-bytes-or-more-for-sure
AUTH0_REDIRECT_URI=https://theirs.example/callback
AUTH0_CLIENT_ASSERTION_SIGNING_KEY=theirs
AUTH0_ORGANIZATION=org_theirs
AUTH0_REDIS_URL=redis://theirs.example/0
DATABASE_URL=sqlite://
"""
OWN = """
import json
import os

import httpx
from flask import Flask

app = Flask(__name__)


@app.get("/")
def home():
    return dict(os.environ)


@app.cli.command()
def show():
    url = f"https://{os.environ['AUTH0_DOMAIN']}/.well-known/jwks.json"
    print(json.dumps({**os.environ, "keys": httpx.get(url).status_code}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an app that has a ``.env`` of its own."""
    (tmp_path / ".env").write_text(DOTENV)
    (tmp_path / "app.py").write_text(OWN)
    return tmp_path


def test_an_env_file_keeps_an_app_neither_from_the_tenant_nor_from_the_rest(
    folder: Path,
) -> None:
    ended = run_with_tenant("flask", "show", cwd=folder)

    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)
    assert [n for n, v in shown.items() if "theirs" in str(v)] == []
    assert shown["AUTH0_DOMAIN"].startswith("localhost:")
    assert shown["AUTH0_ORGANIZATION"] == shown["AUTH0_REDIS_URL"] == ""
    assert shown["AUTH0_REDIRECT_URI"] == "http://localhost:5000/callback"
    assert shown["DATABASE_URL"] == "sqlite://"


def test_what_the_environment_has_stays_and_no_proxy_comes_between(
    folder: Path,
) -> None:
    more = {
        "AUTH0_REDIS_URL": "redis://localhost/1",
        "AUTH0_REDIRECT_URI": "http://localhost:5001/auth/callback",
    }
    nobody = f"http://localhost:{free_port()}"
    proxies = {"HTTPS_PROXY": nobody, "https_proxy": nobody, "ALL_PROXY": nobody}

    ended = run_with_tenant("flask", "show", more=more | proxies, cwd=folder)

    assert ended.returncode == 0, ended.stderr
    assert {**more, "keys": 200}.items() <= json.loads(ended.stdout).items()


def test_alone_it_serves_any_app_of_the_folder(folder: Path) -> None:
    environment = clean_environment({"PYTHONPATH": str(ROOT)})
    del environment["FLASK_SKIP_DOTENV"], environment["PYTHON_DOTENV_DISABLED"]
    command = [sys.executable, "-m", "auth0_flask.tenant"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        site = re.search(r"http://localhost:\d+", process.stdout.readline())
        assert site
        shown = httpx.get(site[0], trust_env=False).json()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0

    assert shown["AUTH0_DOMAIN"].startswith("localhost:")
    assert shown["DATABASE_URL"] == "sqlite://"


def test_it_says_what_to_do_without_an_app_or_trustme(tmp_path: Path) -> None:
    ended = run_with_tenant(cwd=tmp_path)
    assert ended.returncode == 1
    assert "There is no app.py in this folder." in ended.stderr
    assert "python -m auth0_flask.tenant flask" in ended.stderr
    assert "Traceback" not in ended.stderr

    (tmp_path / "trustme.py").write_text("raise ModuleNotFoundError(name='trustme')")
    paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    ended = run_with_tenant("true", more=paths)
    assert ended.returncode == 1
    [sentence] = ended.stderr.splitlines()
    assert "pip install 'auth0-flask-login[testing]'" in sentence
    assert (ROOT / "pyproject.toml").read_text().count('name = "auth0-flask-login"')


# The plugin

CONFTEST = """
import os

import pytest

assert "AUTH0_DOMAIN" not in os.environ
pytest_plugins = ["auth0_flask.tenant.pytest_plugin"]


@pytest.fixture(scope="session")
def app():
    from app import create_app

    return create_app({"TESTING": True})


def pytest_sessionfinish():
    assert os.environ["AUTH0_REDIRECT_URI"].endswith("/callback")
"""
STORIES = """
import os
import pytest
from auth0_flask.tenant.pytest_plugin import complete_login


def test_alice(app):
    client = app.test_client()
    answer = complete_login(client)
    assert answer.status_code == 200
    assert client.get("/api/me").json["name"] == "Alice"


def test_a_page_and_roles(app, tenant_user):
    user = tenant_user("dora", roles=["editor"], email="d@example.com", locale="de")
    client = app.test_client()
    answer = complete_login(client, "/profile", "dora")
    assert answer.request.path == "/profile"
    me = client.get("/api/me").json
    assert me["https://example.com/roles"] == ["editor"]
    assert (me["sub"], me["email"], me["locale"]) == (user.sub, "d@example.com", "de")
    assert complete_login(client, "/profile").request.path == "/profile"


def test_nobody_is_left_from_another_test(app, auth0_tenant):
    assert auth0_tenant.directory.user("dora") is None
    assert auth0_tenant.count("/authorize") == 0
    with pytest.raises(AssertionError, match="no such user"):
        complete_login(app.test_client(), username="dora")


def test_a_refused_login(app, auth0_tenant):
    auth0_tenant.forge("issuer")
    assert complete_login(app.test_client()).status_code >= 400
    client = app.test_client()
    assert complete_login(client, "/login?prompt=none").request.path == "/callback"
    assert client.get("/api/me").status_code == 401
"""


EARLY = """
import os

assert os.environ["AUTH0_DOMAIN"].startswith("localhost:")
assert os.environ["AUTH0_REDIRECT_URI"] == "https://localhost:5000/callback"  # as given
from app import create_app

import pytest


@pytest.fixture(scope="session")
def app():
    return create_app({"TESTING": True})
"""
ADDOPTS = '[tool.pytest.ini_options]\naddopts = "-p auth0_flask.tenant.pytest_plugin"\n'


def run_pytest(
    folder: Path, *options: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the tests in a folder, in an environment without a tenant."""
    kept = clean_environment({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})  # it is slow
    kept.pop("SSL_CERT_FILE", None)
    paths = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**kept, "PYTHONPATH": paths, **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_plugin_signs_a_test_client_in(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(STORIES)
    ran = run_pytest(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout


def test_a_conftest_may_import_the_app_at_its_top_in_several_processes(
    tmp_path: Path,
) -> None:
    (tmp_path / "pyproject.toml").write_text(ADDOPTS)
    (tmp_path / "conftest.py").write_text(EARLY)
    (tmp_path / "test_it.py").write_text(STORIES)
    callback = "https://localhost:5000/callback"
    ran = run_pytest(tmp_path, *["-p", "xdist", "-n", "2"], AUTH0_REDIRECT_URI=callback)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout


# The login under another path; settings are read when it is imported.
SHOP = """
import auth
from flask import Flask

app = auth.init_app(Flask(__name__))
app.register_blueprint(auth.routes, url_prefix="/account")
name = auth.login_required(lambda: auth.auth_user["name"])
app.add_url_rule("/account/", "home", name)
"""
SHOPPING = """
import os
from shop import app
from auth0_flask.tenant.pytest_plugin import complete_login

def test_bob():
    answer = complete_login(app.test_client(), "/account/", "bob")
    assert (answer.request.path, answer.text) == ("/account/", "Bob")
    assert os.environ["AUTH0_REDIRECT_URI"] == "http://localhost/account/callback"
"""


def test_the_callback_may_be_anywhere_in_the_app(tmp_path: Path) -> None:
    callback = 'auth0_callback = "http://localhost/account/callback"\n'
    (tmp_path / "pyproject.toml").write_text(ADDOPTS + callback)
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "conftest.py").write_text("import shop\n")
    (tmp_path / "test_it.py").write_text(SHOPPING)
    ran = run_pytest(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_plugin_says_that_trustme_is_missing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(ADDOPTS)
    (tmp_path / "trustme.py").write_text("raise ModuleNotFoundError(name='trustme')")
    ran = run_pytest(tmp_path)
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "pip install 'auth0-flask-login[testing]'" in ran.stderr
    assert "Traceback" not in ran.stderr


# By hand


SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def assert_accessible(page: Page) -> None:
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert Axe().run(page).response["violations"] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_whoever_is_asked_for_something_can_read_and_answer_it(
    browser: Browser, tenant: Tenant
) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 700})
    page, inbox = context.new_page(), context.new_page()
    query = {
        "client_id": tenant.client_id,
        "response_type": "code",
        "redirect_uri": f"{tenant.origin}/u/session",
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
        "acr_values": "http://schemas.openid.net/pape/policies/2007/06/multi-factor",
    }
    page.goto(f"{tenant.origin}/authorize?{urlencode(query)}")
    assert_accessible(page)
    page.get_by_role("button", name="Alice").click()
    page.get_by_label("Code").fill("000")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_have_text("This code is wrong: try again.")
    assert_accessible(page)
    with context.expect_page() as opened:
        page.get_by_role("link", name="see the code").click()
    code = opened.value.get_by_role("strong").inner_text()
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url("**/u/session?code=*")
    assert_accessible(page)

    hint = json.dumps({"sub": "auth0|bob"})
    app = {"client_id": tenant.client_id, "client_secret": tenant.client_secret}
    asked = {**app, "login_hint": hint, "binding_message": "Desk 4"}
    sent = {**app, "connection": "email", "email": "zoe@example.com"}
    httpx.post(f"{tenant.origin}/passwordless/start", json=sent)
    name = httpx.post(f"{tenant.origin}/bc-authorize", data=asked).json()["auth_req_id"]
    inbox.goto(f"{tenant.origin}/u/inbox")
    expect(
        inbox.get_by_text(tenant.passwordless_code("zoe@example.com"))
    ).to_be_visible()
    assert_accessible(inbox)
    inbox.get_by_role("button", name="Approve").click()
    expect(inbox.get_by_role("button")).to_have_count(0)
    grant = {"grant_type": "urn:openid:params:grant-type:ciba", "auth_req_id": name}
    answer = httpx.post(f"{tenant.origin}/oauth/token", data={**app, **grant})
    assert "id_token" in answer.json()
