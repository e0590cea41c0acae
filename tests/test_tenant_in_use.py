"""The stand-in for Auth0 in use: its environment, its command, its pytest plugin."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import servers
from servers import ROOT, TENANT, WITH_DOTENV, free_port

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
NEEDS_TRUSTME = "pip install 'auth0-flask-login[testing]'"
NO_TRUSTME = {"trustme.py": "raise ModuleNotFoundError(name='trustme')"}


def run(
    command: list[str], folder: Path, files: dict[str, str], status: int, **more: str
) -> str:
    """Run a program in a folder with these files; return what it said."""
    for name, text in files.items():
        (folder / name).write_text(text)
    own = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "SSL_CERT_FILE": ""}
    own["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # it is slow
    env = WITH_DOTENV | own | more
    said = servers.run(*command, cwd=folder, env=env, status=status)
    assert "Traceback" not in said
    return said


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


@app.cli.command("show")
def show():
    url = f"https://{os.environ['AUTH0_DOMAIN']}/authorize?organization=acme"
    query = f"&client_id={os.environ['AUTH0_CLIENT_ID']}&response_type=code"
    query += f"&code_challenge_method=S256&code_challenge={'x' * 43}"
    acme = httpx.get(url + query).headers["Location"]
    print(json.dumps({**os.environ, "acme": acme}))
"""
#: An app that has a ``.env`` of its own.
APP = {".env": DOTENV, "app.py": OWN}


def test_an_env_file_keeps_an_app_neither_from_the_tenant_nor_from_the_rest(
    tmp_path: Path,
) -> None:
    nobody = f"http://localhost:{free_port()}"
    proxies = {"HTTPS_PROXY": nobody, "https_proxy": nobody, "ALL_PROXY": nobody}
    proxies["no_proxy"] = "near.example"
    said = run([*TENANT, "flask", "show"], tmp_path, APP, 0, **proxies)
    output, *told = said.splitlines()
    assert [line.rpartition("/u/")[2] for line in told] == ["session", "inbox"]
    shown = json.loads(output)
    assert [n for n, v in shown.items() if "theirs" in str(v)] == []
    assert shown["AUTH0_DOMAIN"].startswith("localhost:")
    assert shown["AUTH0_ORGANIZATION"] == shown["AUTH0_REDIS_URL"] == ""
    assert shown["AUTH0_REDIRECT_URI"] == "http://localhost:5000/callback"
    assert shown["DATABASE_URL"] == "sqlite://"
    assert "/u/login?" in shown["acme"]  # reached without a proxy
    assert shown["no_proxy"] == "near.example,localhost,127.0.0.1"

    more = {"AUTH0_REDIRECT_URI": "http://localhost:5001/auth/callback"}
    more["AUTH0_REDIS_URL"] = "redis://localhost/1"  # what the environment has stays
    output = run([*TENANT, "flask", "show"], tmp_path, {}, 0, **more)
    shown = json.loads(output.splitlines()[0])
    assert more.items() <= shown.items()


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    said = run(TENANT, tmp_path, {}, 1)
    assert "There is no app.py in this folder." in said
    assert "python -m auth0_flask.tenant flask" in said

    [sentence] = run([*TENANT, "true"], tmp_path, NO_TRUSTME, 1).splitlines()
    assert NEEDS_TRUSTME in sentence
    assert NEEDS_TRUSTME in run(PYTEST, tmp_path, {"pyproject.toml": ADDOPTS}, 4)
    assert (ROOT / "pyproject.toml").read_text().count('name = "auth0-flask-login"')


CONFTEST = """
import os

assert os.environ["AUTH0_REDIRECT_URI"] == "https://localhost:5000/callback"
assert "AUTH0_DOMAIN" not in os.environ
pytest_plugins = ["auth0_flask.tenant.pytest_plugin"]


def pytest_sessionfinish():
    assert os.environ["AUTH0_REDIRECT_URI"] == "https://localhost:5000/callback"
    assert os.environ["AUTH0_DOMAIN"].startswith("localhost:")
"""
STORIES = """
import pytest
from auth0_flask.tenant.pytest_plugin import complete_login


@pytest.fixture
def app():
    from app import create_app

    return create_app({"TESTING": True})


def test_a_page_and_roles(app, tenant_user):
    user = tenant_user("dora", roles=["editor"], email="d@example.com", locale="de")
    client = app.test_client()
    answer = complete_login(client, "/profile", "dora")
    assert (answer.status_code, answer.request.path) == (200, "/profile")
    me = client.get("/api/me").json
    assert me["https://example.com/roles"] == ["editor"]
    assert (me["sub"], me["email"], me["locale"]) == (user.sub, "d@example.com", "de")
    assert complete_login(client, "/profile").request.path == "/profile"


def test_nobody_is_left_from_another_test(app, auth0_tenant):
    with pytest.raises(AssertionError, match="no such user"):
        complete_login(app.test_client(), username="dora")


def test_a_refused_login(app, auth0_tenant):
    auth0_tenant.forge("issuer")
    client = app.test_client()
    assert complete_login(client).status_code >= 400
    assert complete_login(client, "/login?prompt=none").request.path == "/callback"
    assert client.get("/api/me").status_code == 401
    complete_login(client)
    assert client.get("/api/me").json["name"] == "Alice"
"""
ADDOPTS = '[tool.pytest.ini_options]\naddopts = "-p auth0_flask.tenant.pytest_plugin"\n'
EARLY = """
import os

assert os.environ["AUTH0_REDIRECT_URI"] == "http://localhost:5001/callback"
import app as imported_at_its_top
"""


def test_the_plugin_signs_a_test_client_in_whoever_imports_the_app(
    tmp_path: Path,
) -> None:
    files = {"conftest.py": CONFTEST, "test_it.py": STORIES}
    callback = {"AUTH0_REDIRECT_URI": "https://localhost:5000/callback"}
    assert "3 passed" in run(PYTEST, tmp_path, files, 0, **callback)

    setup = ADDOPTS + 'auth0_callback = "http://localhost:5001/callback"\n'
    files = {"pyproject.toml": setup, "conftest.py": EARLY}
    several = [*PYTEST, "-p", "xdist", "-n", "2"]
    assert "3 passed" in run(several, tmp_path, files, 0)
