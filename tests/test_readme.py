"""The README: its Python and its commands run as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values
from jinja2 import DictLoader

import auth
from auth0_flask.settings import Settings, setting_names
from auth0_flask.tenant import Tenant
from readme_blocks import README, SETUP, Block, Shell, blocks, chapter, copy_project
from servers import ROOT, clean_environment, free_port
from test_drop_in import packages
from visitor import Visitor, state_of

LANGUAGES = {
    *("sh", "python", "py", "dotenv", "diff", "sql", "js", "nginx", "text", "toml"),
}
COMMANDS = [block for block in blocks("sh") if not block.why_not_run]


def test_its_python_makes_an_app_that_guards_its_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("app")  # whose tests import it by that name
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks("python"):
        exec(compile(block.code, "README.md", "exec"), vars(module))  # noqa: S102 - ours
    own_page = "{{ error.description }} {{ error.error }} {{ error.reference }}"
    module.app.jinja_loader = DictLoader({"login_failed.html": own_page})
    client = module.app.test_client()

    redirected = client.get("/reports?month=11")
    started = client.get("/login")

    assert redirected.headers["Location"] == "/login?return_to=/reports?month%3D11"
    assert "/authorize?" in started.headers["Location"]
    failed = client.get("/callback")
    assert failed.status_code == 400
    assert re.search(r" incomplete_callback [0-9a-f]{8}$", failed.text)
    assert "/v2/logout?" in client.get("/logout").headers["Location"]
    assert client.post("/backchannel-logout").status_code == 400
    auth.login_as(client)
    assert client.get("/admin").status_code == 403
    without_tokens = client.get("/orders")
    assert without_tokens.status_code == 401
    assert without_tokens.mimetype == "application/problem+json"


def test_every_block_is_in_a_language_that_is_looked_after_here() -> None:
    found = blocks()

    assert {block.language for block in found} <= LANGUAGES
    assert len(found) * 2 == README.count("```")
    assert "~~~" not in README


def test_what_is_not_run_gives_a_reason() -> None:
    kept_back = [block for block in blocks() if block.why_not_run]

    assert [str(block) for block in kept_back] == ["docker compose up --build --detach"]


@pytest.mark.parametrize("block", COMMANDS, ids=str)
async def test_a_command_of_it_works(
    block: Block, tenant: Tenant, tmp_path: Path, visitors: Callable[..., Visitor]
) -> None:
    if block.command == "pytest\n":
        return  # what runs this; see the next test
    port, project = str(free_port()), copy_project(tmp_path / "project")
    environment = {
        **tenant.environ(redirect_uri=f"http://localhost:{port}/callback"),
        "AUTH0_REVOCATIONS_PATH": str(tmp_path / "revocations.sqlite3"),
        "FLASK_RUN_PORT": port,
    }
    code = block.command.replace(":8000", f":{port}")
    shell = Shell(code.replace("--port 8000", f"--port {port}"), project, environment)
    try:
        if site := shell.wait_for_site():
            async with visitors(at=site) as visitor:  # a server waits for who stays
                assert state_of(await visitor.start())
    finally:
        shell.stop()
    assert _any_port(block.shows) in _any_port(shell.output)


def _any_port(text: str) -> str:
    return re.sub(r":\d{4,5}\b", ":PORT", text)


def test_ci_sets_up_and_tests_by_the_words_of_it() -> None:
    pattern = re.search(r"grep -m1 '(.*)' README.md", (ROOT / ".ci/run").read_text())
    assert pattern

    found = re.findall(pattern[1], README, re.M)

    assert [SETUP.sub("", words) for words in found] == ["pytest"]
    made_for = {
        SETUP.match(block.code)[1]: block.command  # type: ignore[index]  # or it fails
        for block in blocks("sh")
        if "venv" in block.code
    }
    assert made_for == {
        "requirements.txt": "python -m auth0_flask.tenant\n",
        "requirements-dev.txt": "pytest\n",
    }


@pytest.fixture
def followed(tmp_path: Path) -> Path:
    """The project of somebody who followed it up to where it is about tests."""
    shutil.copy(ROOT / "auth.py", tmp_path)
    before = README.partition("\n## Test your app\n")[0]
    code = "\n\n".join(block.code for block in blocks("python", text=before))
    (tmp_path / "app.py").write_text(code)
    tests = tmp_path / "tests"
    tests.mkdir()
    for number, block in enumerate(blocks("python", text=chapter("Test your app"))):
        (tests / f"test_{number}.py").write_text(block.code)
    return tmp_path


def test_its_tests_pass_in_an_empty_environment(followed: Path) -> None:
    assert "2 passed" in _pytest(followed)


def test_its_tests_pass_with_the_tenant_too(followed: Path) -> None:
    [setup] = blocks("toml", text=chapter("Test your app"))
    [test] = blocks("py", text=chapter("Test your app"))
    (followed / "pyproject.toml").write_text(setup.code)
    (followed / "tests" / "test_whole_logins.py").write_text(test.code)
    assert "3 passed" in _pytest(followed)

    (followed / "pyproject.toml").unlink()
    [line] = re.findall(r"`(pytest_plugins = .+?)`", chapter("Test your app"))
    (followed / "conftest.py").write_text(line)
    assert "3 passed" in _pytest(followed)


def _pytest(folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env=clean_environment({"PYTHONPATH": packages()}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout


def test_its_other_fragments_are_parts_of_the_examples() -> None:
    sources = [path.read_text() for path in (ROOT / "examples").rglob("*.py")]
    tried = blocks("py", text=chapter("Test your app"))
    for block in blocks("py"):
        assert block in tried or any(
            all(part in text for part in block.code.split("\n\n\n")) for text in sources
        ), block


def test_its_settings_are_appended_to_those_of_an_app(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (project / ".env").write_text("DATABASE_URL=sqlite://")  # and no end of line
    [append] = [block for block in blocks("sh") if ".env" in block.code]

    assert Shell(append.code, project, {}).wait_for_site() is None

    values = dotenv_values(project / ".env")
    assert values["DATABASE_URL"] == "sqlite://"
    assert values["AUTH0_DOMAIN"] == "your-tenant.eu.auth0.com"


def test_its_lines_for_env_are_settings() -> None:
    names = set(setting_names())
    for block in blocks("dotenv"):
        values = {
            n: v or "" for n, v in dotenv_values(stream=StringIO(block.code)).items()
        }
        needed = {
            "AUTH0_DOMAIN": "tenant.eu.auth0.com",
            "AUTH0_CLIENT_ID": "an-id",
            "AUTH0_CLIENT_SECRET": "a-secret",
            "AUTH0_SECRET": "s" * 32,
            "AUTH0_REDIRECT_URI": "http://localhost:5000/callback",
        }
        assert values.keys() <= names
        assert Settings.from_environment({**needed, **values}).problems == ()


def test_its_first_diff_leads_to_the_app_below_it() -> None:
    text = chapter("Put it into your app")
    diff, *_ = blocks("diff", text=text)
    app = "".join(block.code for block in blocks("python", text=text))
    after = [s[1:] for s in diff.code.splitlines() if s[:1] in {"+", " "} and s[1:]]

    places = [app.index(f"{line}\n") for line in after]
    assert places == sorted(places)


def test_every_public_name_is_in_its_table() -> None:
    table = README.partition("| Name | What it is |")[2].partition("\n\n")[0]
    for name in auth.__all__:
        assert re.search(rf"`{name}\b", table), name


def test_every_setting_is_in_its_table_and_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    for name in [*setting_names(), "TRUSTED_PROXIES"]:
        assert f"`{name}`" in README, name
        assert f"{name}=" in example, name


def test_its_table_of_sizes_is_what_is_measured() -> None:
    from auth0_flask.stores.cookies import TOTAL_BYTES

    assert f"{TOTAL_BYTES:,} bytes in all" in README
    # in a process of its own: it sets the environment of its app
    command = [sys.executable, "-m", "bench.sizes"]
    measured = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    ).stdout

    stated = README[README.index(measured.partition("\n")[0]) :]
    for said, found in zip(stated.splitlines(), measured.splitlines(), strict=False):
        words, *numbers = said.strip("| ").split(" | ")
        assert found.startswith(f"| {words} |") or set(said) <= set("|-")
        for one, other in zip(numbers, found.strip("| ").split(" | ")[1:], strict=True):
            if one.replace(",", "").isdecimal():
                assert _number(other) == pytest.approx(_number(one), rel=0.02)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def test_its_table_of_log_lines_has_what_is_logged_with_its_level() -> None:
    table = chapter("Run it in production").partition("| Line | Level |")[2]
    stated = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", table, re.M)
    logged = _logged()
    assert len(logged) > 15

    for line, level in logged:
        assert any(_fits(row, line) and level == of for row, of in stated), line
    for row, _ in stated:
        assert any(_fits(row, line) for line, _ in logged), row


def _fits(row: str, line: str) -> bool:
    known = re.escape(row).replace("…", ".*").replace("CODE", ".*")
    return re.match(known, line) is not None


def _logged() -> list[tuple[str, str]]:
    """Return the texts handed to loggers, with … for what is filled in; their level."""
    pattern = re.compile(r'logger\.(\w+)\(\s*(?:logging[^"]*)?((?:"[^"]*"\s*)+)')
    levels = {"log": "WARNING; ERROR from 500 on", "exception": "ERROR"}
    found = []
    for folder in (ROOT, ROOT / "auth0_flask", ROOT / "stores"):
        for match in pattern.finditer("".join(map(_text, folder.glob("*.py")))):
            text = "".join(re.findall(r'"([^"]*)"', match[2]))
            level = levels.get(match[1], match[1].upper())
            found.append((re.sub(r"%[\d.]*[sdrf]", "…", text), level))
    return found


def _text(path: Path) -> str:
    return path.read_text()


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_its_links_within_it_lead_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.*)$", README, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
