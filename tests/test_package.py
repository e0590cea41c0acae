"""The package as pip installs it: the same from everywhere, and with all it needs."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

import auth0_flask
import servers
from environments import environment_with
from readme_blocks import copy_project
from redis_server import RedisServer
from servers import BIN, ROOT
from test_settings import GOOD

NAME, VERSION = "auth0_flask_login", auth0_flask.__version__
WHEEL = f"{NAME}-{VERSION}-py3-none-any.whl"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

#: Ten lines of somebody's app, with the three of the login.
APP = """\
from flask import Flask

from anything import sso

app = Flask("shop")
sso.init_app(app)
app.register_blueprint(sso.routes)


@app.get("/reports")
@sso.login_required
def reports() -> dict[str, object]:
    return dict(sso.auth_user)


@app.get("/token")
@sso.login_required
async def token() -> str:
    return await sso.auth0.get_access_token()
"""
STORY = """\
import time

from auth0_flask.tenant.pytest_plugin import complete_login

from app import app


def test_a_login_a_refresh_and_a_logout(auth0_tenant, tenant_user):
    auth0_tenant.access_token_lifetime = 1
    tenant_user("dora")
    client = app.test_client()
    assert client.get("/reports").location == "/login?return_to=/reports"

    complete_login(client, "/reports", username="dora")
    before = client.get("/token").text
    time.sleep(1.1)
    assert len({before, client.get("/token").text}) == 2

    assert "/v2/logout?" in client.get("/logout").location
    assert client.get("/reports").status_code == 302
"""


def run(*command: str | Path, cwd: Path = ROOT, **more: str) -> str:
    """Run a program to its end, where it sees nothing of this project."""
    return servers.run(*command, cwd=cwd, env={"PYTHONPATH": "", **more})


def pip(*words: str | Path, cwd: Path = ROOT, **more: str) -> str:
    command = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    return run(*command, *words, cwd=cwd, **more)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with what builds the package, which is not fetched for every build."""
    folder = tmp_path_factory.mktemp("backend")
    pip("install", "--target", folder, *PYPROJECT["build-system"]["requires"])
    return str(folder)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project: in Git, with the link to ``stores``."""
    folder = copy_project(tmp_path_factory.mktemp("checkout") / "project")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com")
    run(*git, "init", "--quiet", cwd=folder)
    run(*git, "add", "--all", cwd=folder)
    run(*git, "commit", "--quiet", "--message", "all", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path, backend: str) -> Path:
    """The folder of the wheel and the source distribution."""
    folder = checkout.parent / "built"
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    run(*command, checkout, PYTHONPATH=backend)
    return folder


def files_below(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


#: The package's files in this tree, those behind the link too.
HERE = {f"auth0_flask/{name}" for name in files_below(ROOT / "auth0_flask")}
HERE |= {f"auth0_flask/stores/{name}" for name in files_below(ROOT / "stores")}


def test_from_everywhere_the_same_is_installed_and_logs_in(
    checkout: Path, backend: str, built: Path, installed: Path, project: Path
) -> None:
    sources = [*map(str, built.iterdir()), f"git+file://{checkout}"]
    for number, source in enumerate(sources):
        folder = project / str(number)
        words = ["install", "--no-deps", "--no-compile", "--target", str(folder)]
        if source != sources[-1]:  # pip itself fetches what builds that
            words += ["--no-build-isolation"]
        pip(*words, source, PYTHONPATH=backend)
        files = files_below(folder)
        assert {f for f in files if ".dist-info/" not in f} == HERE, source
        tops = {file.partition("/")[0] for file in files}
        assert tops == {"auth0_flask", f"{NAME}-{VERSION}.dist-info"}, source
        # what PYTHONPATH names comes before the wheel that is installed there
        log_in(installed, project, PYTHONPATH=str(folder))


def test_an_editable_installation_is_this_tree(
    checkout: Path, backend: str, tmp_path: Path
) -> None:
    python = environment_with(tmp_path)
    options = ("--no-deps", "--no-build-isolation", "--editable", checkout)
    pip("--python", python, "install", *options, PYTHONPATH=backend)
    find = "import importlib.util as u; print(u.find_spec('auth0_flask').origin)"
    found = run(python, "-c", find, cwd=tmp_path).strip()
    assert found == str(checkout / "auth0_flask" / "__init__.py")


def test_a_checkout_without_links_is_told_so(
    checkout: Path, backend: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkout, tmp_path / "project", symlinks=True)
    (link := folder / "auth0_flask" / "stores").unlink()
    link.write_text("../stores")  # as Git has it without core.symlinks
    with pytest.raises(AssertionError, match=r"auth0_flask.stores"):
        run(sys.executable, "-m", "build", "-nw", folder, PYTHONPATH=backend)
    with pytest.raises(AssertionError, match=r"git config core\.symlinks true"):
        run(sys.executable, "-c", "import auth0_flask", cwd=folder)


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment with what it needs; return its programs."""
    own = PYPROJECT["project"]
    needed = sum(own["optional-dependencies"].values(), own["dependencies"])
    python = environment_with(tmp_path_factory.mktemp("installed"), *needed, "pytest")
    pip("--python", python, "install", "--no-deps", "--no-compile", built / WHEEL)
    return python.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's app, with ``auth.py`` in a package and under a name of its own."""
    (tmp_path / "anything").mkdir()
    (tmp_path / "anything" / "__init__.py").touch()
    shutil.copy(ROOT / "auth.py", tmp_path / "anything" / "sso.py")
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "test_story.py").write_text(STORY)
    return tmp_path


def log_in(installed: Path, project: Path, **more: str) -> None:
    """Run the story of somebody's app."""
    options = ("-q", "-o", "filterwarnings=error", "-p", "no:cacheprovider")
    plugin = ("-p", "auth0_flask.tenant.pytest_plugin")
    command = (installed / "python", "-m", "pytest", *options, *plugin)
    more["AUTH0_SCOPE"] = "openid profile offline_access"
    assert "1 passed" in run(*command, cwd=project, **more)


def test_a_login_with_redis_and_the_server_that_its_extras_bring(
    installed: Path, project: Path, redis_server: RedisServer
) -> None:
    run(installed / "granian", "--version")
    importing = (installed / "python", "-W", "error", "-c", "import app")
    assert run(*importing, cwd=project, **GOOD) == ""
    log_in(installed, project, AUTH0_REDIS_URL=redis_server.url)
    assert redis_server.say("DBSIZE") != b":0\r\n"


def test_linters_of_an_app_find_nothing_of_ours(installed: Path, project: Path) -> None:
    python = installed / "python"
    run(BIN / "ruff", "check", "--isolated", "--no-cache", ".", cwd=project)
    run(BIN / "ruff", "format", "--check", "--isolated", "--no-cache", cwd=project)

    mypy = (BIN / "mypy", "--python-executable", python, "--cache-dir", os.devnull)
    run(*mypy, "--strict", "app.py", "anything", cwd=project)
