"""README and docs: their Python and their commands run as they stand there."""

from __future__ import annotations

import re
import shutil
import sys
import types
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import respx
from dotenv import dotenv_values
from jinja2 import DictLoader

import auth
from auth0_flask import errors
from auth0_flask.settings import Settings, setting_names
from auth0_flask.tenant import Tenant, pytest_plugin
from docs import make_reference
from readme_blocks import PAGES, README, Block, Shell, blocks, chapter, copy_project
from servers import ROOT, free_port, run
from test_drop_in import PACKAGES, app_of_the_readme
from test_settings import GOOD
from visitor import Shopper, Visitor, http_browser, state_of

#: Run by the story of a newcomer, in an environment that it makes.
FIRST_SCREENS = README.partition("### Use your Auth0 account")[0]
COMMANDS = {
    block.command: block
    for page in PAGES
    for block in blocks("sh", page=page)
    if block.is_run and block.code not in FIRST_SCREENS
}
NOT_RUN = {
    "CONTRIBUTING.md": [".ci/run", "pytest @tests", "python3 -m venv"],
    "README.md": ["pytest"],
    "docs/production.md": ["docker compose"],
}
LANGUAGES = re.compile("sh|python|py|dotenv|diff|sql|js|nginx|text|toml")
WITH_PYTHON = [page for page in PAGES if blocks("python", page=page)]
#: In the chapters about tests, blocks are tests.
TESTS = blocks("python", text=chapter("Test your app"))
TESTS += blocks("python", text=chapter("Async tests", "docs/existing-apps.md"))


def app_with(page: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the README's app, with all that a page adds to it, as a module."""
    module = types.ModuleType("app")  # whose tests import it by that name
    monkeypatch.setitem(sys.modules, module.__name__, module)
    added = [b.code for b in blocks("python", page=page) if b not in TESTS]
    for code in (app_of_the_readme(), *added):
        exec(compile(code, page, "exec"), vars(module))  # noqa: S102 - ours
    own_page = "{{ error.description }} {{ error.error }} {{ error.reference }}"
    module.app.jinja_loader = DictLoader({"login_failed.html": own_page})
    return module.app


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_every_view_of_a_page_answers_a_user(
    page: str, monkeypatch: pytest.MonkeyPatch, respx_mock: respx.MockRouter
) -> None:
    """By a whole login at the tenant, and by `login_as`, which gives no token."""
    respx_mock.route(host__regex=r"(localhost|127\.0\.0\.1)").pass_through()
    respx_mock.route(host__regex=r".*\.example\.com").respond(json=[])
    app = app_with(page, monkeypatch)
    alice, bob = Shopper(app), Shopper(app)
    reports = alice.client.get("/reports?month=11")
    assert reports.location == "/login?return_to=/reports?month%3D11"
    failed = alice.client.get("/callback").text
    if page == "docs/existing-apps.md":  # it has a page for that
        assert re.search(r" incomplete_callback [0-9a-f]{8}$", failed)
    assert alice.login().location == "/"
    auth.login_as(bob.client, sub="auth0|bob")

    paths = {r.rule for r in app.url_map.iter_rules() if "GET" in (r.methods or ())}
    for path in [*sorted(paths - {"/static/<path:filename>", "/logout"}), "/logout"]:
        for who in (alice, bob):
            answer = who.client.get(path)
            assert answer.status_code < 500, f"{path}: {answer.text}"
            if page == "README.md" and (who, path) == (bob, "/admin"):
                assert answer.status_code == 403


def test_every_block_is_run_or_says_why_not_and_pages_are_short() -> None:
    for page, text in PAGES.items():
        found = blocks(page=page)
        assert all(LANGUAGES.fullmatch(block.language) for block in found), page
        assert len(found) * 2 == text.count("```"), page
        kept_back = sorted(b.command for b in blocks("sh", page=page) if not b.is_run)
        begins = NOT_RUN.get(page, [])
        assert all(map(str.startswith, kept_back, begins)), kept_back
        assert len(kept_back) == len(begins), kept_back
    assert len(README.splitlines()) <= 300
    assert len(README.encode()) <= 14_000
    assert (ROOT / "SECURITY.md").stat().st_size <= 8_000


@pytest.mark.slow
async def test_a_newcomer_has_a_guarded_view_after_two_screens(
    tmp_path: Path, visitors: Callable[..., Visitor]
) -> None:
    """In a fresh copy and a fresh environment, by the first screens' commands alone."""
    project, port = copy_project(tmp_path / "project"), str(free_port())
    try_it, put_it, run_it = blocks("sh", text=FIRST_SCREENS)
    [shown] = blocks("text", text=FIRST_SCREENS)
    made = try_it.code.removesuffix(f" && {try_it.command}")
    environment = {"FLASK_RUN_PORT": port}
    activate = f". {project}/.venv/bin/activate; "
    for code in (made, activate + put_it.code):
        assert Shell(code, project, environment).wait_for_site(minutes=5) is None
    mine = tmp_path / "my-app"
    (mine / "app.py").write_text(app_of_the_readme())
    for folder, code in ((project, try_it.command), (mine, run_it.code)):
        with Shell(activate + code, folder, environment) as shell:
            site = shell.wait_for_site()
            assert site
            assert re.sub(r":\d+", "", shown.code) in re.sub(r":\d+", "", shell.output)
            alice = visitors(at=site)
            page = await alice.login("/reports" if folder == mine else "/profile")
            await alice.http.aclose()  # a server waits for who stays
    assert page.text == "Reports for auth0|alice"


@pytest.mark.parametrize("block", COMMANDS.values(), ids=str)
def test_a_command_of_it_works(block: Block, tenant: Tenant, tmp_path: Path) -> None:
    port, project = str(free_port()), copy_project(tmp_path / "project")
    environment = {
        **tenant.environ(redirect_uri=f"http://localhost:{port}/callback"),
        "AUTH0_REVOCATIONS_PATH": str(tmp_path / "revocations.sqlite3"),
        "PYTHON_DOTENV_DISABLED": "",  # which setup would refuse
        "FLASK_RUN_PORT": port,
    }
    code = block.command.replace(":8000", f":{port}")
    code = code.replace("--port 8000", f"--port {port}")
    (project / ".env").write_text("DATABASE_URL=sqlite://")  # and no end of line
    with Shell(code, project, environment) as shell:
        if site := shell.wait_for_site():
            with http_browser() as http:  # a server waits for who stays
                assert state_of(http.get(f"{site}/login", follow_redirects=True))
    assert dotenv_values(project / ".env")["DATABASE_URL"] == "sqlite://"


def test_its_tests_pass_in_an_empty_environment_and_with_the_tenant_too(
    tmp_path: Path,
) -> None:
    """In the project of somebody who followed it up to where it is about tests."""
    shutil.copy(ROOT / "auth.py", tmp_path)
    code = [b.code for b in blocks("python") if b not in TESTS]
    (tmp_path / "app.py").write_text("\n\n".join(code))
    (tests := tmp_path / "tests").mkdir()
    for number, block in enumerate(TESTS):
        (tests / f"test_{number}.py").write_text(block.code)
    assert "2 passed" in _pytest(tmp_path)

    [setup] = blocks("toml", text=chapter("Test your app"))
    [test] = blocks("py", text=chapter("Test your app"))
    (tmp_path / "pyproject.toml").write_text(setup.code)
    (tests / "test_whole_logins.py").write_text(test.code)
    assert "3 passed" in _pytest(tmp_path)
    # the other way, which test_tenant_in_use.py goes
    assert f"`pytest_plugins = {[pytest_plugin.__name__]}`".replace("'", '"') in README


def _pytest(folder: Path) -> str:
    command = (sys.executable, "-m", "pytest", "-q", "-p", "asyncio")
    own = {"PYTHONPATH": PACKAGES, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return run(*command, cwd=folder, env=own)


def test_its_other_fragments_are_parts_of_the_examples() -> None:
    sources = [path.read_text() for path in (ROOT / "examples").rglob("*.py")]
    tried = blocks("py", text=chapter("Test your app"))
    for block in [block for page in PAGES for block in blocks("py", page=page)]:
        assert block in tried or any(
            all(part in text for part in block.code.split("\n\n\n")) for text in sources
        ), block


def test_the_reference_is_what_the_docstrings_say() -> None:
    expected = make_reference.reference()
    assert PAGES["docs/reference.md"] == expected, make_reference.__doc__


def test_every_setting_is_in_its_table_and_lines_for_env_are_settings() -> None:
    example = (ROOT / ".env.example").read_text()
    for name in [*setting_names(), "TRUSTED_PROXIES"]:
        assert f"`{name}`" in README, name
        assert f"{name}=" in example, name
    for block in [block for page in PAGES for block in blocks("dotenv", page=page)]:
        values = dotenv_values(stream=StringIO(block.code))
        given = {name: value or "" for name, value in values.items()}
        assert values.keys() <= set(setting_names())
        assert Settings.from_environment({**GOOD, **given}).problems == ()


def test_its_table_of_log_lines_has_what_is_logged_with_its_level() -> None:
    table = chapter("By log line", "docs/troubleshooting.md")
    stated = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", table, re.M)
    call = re.compile(r'logger\.(\w+)\(\s*(?:logging[^"]*)?((?:"[^"]*"\s*)+)')
    folders = (ROOT, ROOT / "auth0_flask", ROOT / "stores")
    code = "".join(path.read_text() for f in folders for path in f.glob("*.py"))
    met = set()
    for kind, words in call.findall(code):
        line = re.sub(r"%[\d.]*[sdrf]", "…", "".join(re.findall('"([^"]*)"', words)))
        level = "WARNING; ERROR from 500 on" if kind == "log" else kind.upper()
        rows = [row for row in stated if _fits(row[0], line)]
        assert level in [of for _, of in rows], line
        met.update(rows)
    assert met == set(stated)
    assert len(met) > 15


def _fits(row: str, line: str) -> bool:
    pattern = re.escape(row).replace("…", ".*").replace("CODE", ".*")
    return re.match(pattern, line) is not None


def test_every_code_of_an_error_is_in_its_table() -> None:
    table = chapter("By code", "docs/troubleshooting.md")
    stated = {
        c
        for row in re.findall(r"^\| (`[^|]+) \|", table, re.M)
        for c in row[1:-1].split("`, `")
    }
    folders = (ROOT / "auth0_flask", ROOT / "stores")
    code = "".join(path.read_text() for f in folders for path in f.glob("*.py"))
    others = re.findall(r'^    error = "(\w+)"', code, re.M)
    others += re.findall(r'"(\w+s_unavailable)"', code)
    others += [f"{what}_unavailable" for what in re.findall(r'_asking\("(\w+)"', code)]

    assert stated == {*errors._TEXTS, *others}
    assert len(others) > 4


def test_links_lead_to_a_file_and_a_heading_of_it() -> None:
    for page, text in PAGES.items():
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, anchor = link.partition("#")
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.exists(), f"{page}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text().lower(), re.M)
                found = [re.sub(r"[^\w\- ]", "", h).replace(" ", "-") for h in headings]
                assert anchor in found, f"{page}: {link}"
