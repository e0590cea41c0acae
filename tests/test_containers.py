"""The Dockerfile and compose.yaml, without an engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it comes without types

from auth0_flask.tenant import Tenant
from environments import environment_with
from redis_server import RedisServer
from servers import ROOT, free_port, serving
from visitor import Visitor

#: What is in the image, by instruction, in order: ("COPY", "stores/ stores/").
DOCKERFILE = re.findall(
    r"^([A-Z]+) (.+)$", (ROOT / "Dockerfile").read_text().replace("\\\n", ""), re.M
)
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def said(instruction: str) -> list[str]:
    """Return what stands behind an instruction, each time that it is given."""
    return [rest for name, rest in DOCKERFILE if name == instruction]


def command(instruction: str, python: Path, port: int) -> list[str]:
    """Return a command of the image, for a port of this machine."""
    [line] = said(instruction)
    words: list[str] = json.loads(line[line.index("[") :].replace("8000", str(port)))
    return [str(python.parent / words[0]), *words[1:]]


def is_held_back(path: str) -> bool:
    """Say whether .dockerignore does that; the last rule that fits decides."""
    back = False
    for rule in re.findall(r"^[^#\n]+", (ROOT / ".dockerignore").read_text(), re.M):
        pattern = re.escape(rule.removeprefix("!"))
        pattern = pattern.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(/.*)?", path):
            back = not rule.startswith("!")
    return back


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the packages that the image installs, and no others."""
    [install] = [line for line in said("RUN") if line.startswith("pip install")]
    text = "\n".join((ROOT / f).read_text() for f in re.findall(r"-r (\S+)", install))
    pins = re.findall(r"^(\S+)==", text, re.M)
    assert len(pins) == len(re.findall(r"^[^#\n]", text, re.M))  # each has a version
    return environment_with(tmp_path_factory.mktemp("image-python"), *pins)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with the files that the image has, and no others."""
    (folder := tmp_path / "image").mkdir()

    def left_out(within: str, names: list[str]) -> list[str]:
        below = Path(within).relative_to(ROOT)
        return [name for name in names if is_held_back(f"{below}/{name}")]

    for line in said("COPY"):
        *sources, target = line.split()
        for source in sources:
            assert not is_held_back(source.rstrip("/"))
            if source.endswith("/"):
                given: Any = {"symlinks": True, "ignore": left_out}
                shutil.copytree(ROOT / source, folder / target, **given)
            else:
                shutil.copy(ROOT / source, folder / target)
    return folder


@pytest.mark.parametrize("with_redis", [False, True], ids=["alone", "with Redis"])
async def test_what_is_in_the_image_signs_somebody_in_and_answers_its_health_check(
    image: Path,
    python: Path,
    tmp_path: Path,
    tenant: Tenant,
    visitors: Callable[..., Visitor],
    with_redis: bool,
) -> None:
    port, before = free_port(), sorted(os.walk(image))
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    environment["AUTH0_REVOCATIONS_PATH"] = str(tmp_path / "revocations.sqlite3")
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:1")
    check = partial(subprocess.call, command("HEALTHCHECK", python, port))
    check = partial(check, env={**os.environ, **proxies}, stderr=subprocess.DEVNULL)
    start = ["sh", "-c", 'cd "$0" && exec "$@"', str(image)]
    start += command("CMD", python, port)
    with ExitStack() as stack:
        if with_redis:
            program, *options = shlex.split(COMPOSE["redis"]["command"])
            assert program == "redis-server"
            redis = RedisServer(tmp_path, *options).start()
            stack.callback(redis.kill)
            environment["AUTH0_REDIS_URL"] = redis.url
        with serving(start, environment, port) as server:
            alice = visitors("alice", at=server.site)
            page = await alice.login("/profile")
            page_in_french = await alice.get("/profile?lang=fr")
            assert check() == 0
        assert check() == 1

    assert "alice@example.com" in page.text
    assert "Sign out" in page.text
    assert "Sign out" not in page_in_french.text
    assert sorted(os.walk(image)) == before  # so it may be read-only
    assert (tmp_path / "revocations.sqlite3").exists() != with_redis


def test_what_is_secret_or_for_tests_is_kept_out_of_the_image() -> None:
    for path in (
        *(".env", ".env.example", ".git/config", "instance/auth0-revocations.sqlite3"),
        *("auth0_flask/__pycache__/client.cpython-313.pyc", "tests/conftest.py"),
        "auth0_flask/tenant/__init__.py",
    ):
        assert is_held_back(path), path
    assert DOCKERFILE.index(("USER", "app")) < DOCKERFILE.index(("CMD", *said("CMD")))


def test_its_log_has_our_lines() -> None:
    config = json.loads((ROOT / "logging.json").read_text())
    assert config["root"]["level"] == "INFO"
    assert config["disable_existing_loggers"] is False  # ours are there before it
