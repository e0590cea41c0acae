"""A short soak, and that it notices what it is there to notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servers import ROOT
from services import path_of

if TYPE_CHECKING:
    from flask import Flask

_SHORT = ["--logins", "60", "--users", "10", "--at-once", "10"]
_FEW = ["--logins", "20", "--users", "4", "--at-once", "4", "--workers", "1"]
_OPTIONS = {
    "a file": _SHORT,
    "Redis": [*_SHORT, "--redis"],
    "faults": [*_FEW, "--app", "test_soak:faulty()"],
}


@pytest.fixture(scope="module")
def soaks() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Three soaks that run side by side, since they mostly wait."""
    has_redis = shutil.which("redis-server")
    wanted = {n: o for n, o in _OPTIONS.items() if has_redis or n != "Redis"}
    started = {name: _start(options) for name, options in wanted.items()}
    yield started
    for process in started.values():
        process.terminate()
        process.communicate(timeout=40)


def _start(options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.soak", "--seed", "3", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("kept_in", ["a file", "Redis"])
def test_many_disturbed_logins_leave_nothing_behind(
    soaks: dict[str, subprocess.Popen[str]], kept_in: str
) -> None:
    if kept_in == "Redis":
        path_of("redis-server")

    said, _ = soaks[kept_in].communicate(timeout=120)

    assert soaks[kept_in].returncode == 0, said
    assert "| logins | 60 |" in said
    assert "Nothing wrong." in said


def test_a_soak_names_what_is_wrong_with_an_app(
    soaks: dict[str, subprocess.Popen[str]],
) -> None:
    said, _ = soaks["faults"].communicate(timeout=120)

    assert soaks["faults"].returncode == 1, said
    for words in (
        r"user0000, login \d+: / tells user0000 of user0001",
        r"user0001, login \d+: a copy of the cookie is user0001 after a logout",
        r"user0002, login \d+: /callback answers 500",
        r"tracebacks in the log: [\s\S]*RuntimeError: a fault on purpose",
        r"files of worker \d+ went from \d+ to \d+",
    ):
        assert re.search(f"WRONG: .*{words}", said), said


def faulty() -> Flask:
    """Return an app that is wrong for each user in another way; for gunicorn."""
    from flask import session

    from app import create_app
    from auth import auth_user

    made = create_app()
    named = ("home", "logout", "callback")
    home, logout, callback = (made.ensure_sync(made.view_functions[n]) for n in named)

    def greet_somebody_else() -> str:
        return str(home()).replace("User0000", "User0001")

    def forget_the_cookie_only() -> object:
        if auth_user.get("name") == "User0001":
            session.clear()
        return logout()

    def break_down() -> object:
        answer = callback()
        if auth_user.get("name") == "User0002":
            raise RuntimeError("a fault on purpose")
        return answer

    views: list[Any] = [greet_somebody_else, forget_the_cookie_only, break_down]
    made.view_functions.update(zip(named, views, strict=True))
    made.before_request(_leave_a_file_open)
    return made


def _leave_a_file_open() -> None:
    os.open(os.devnull, os.O_RDONLY)
