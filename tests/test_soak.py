"""A short soak, and that it notices what it is there to notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servers import ROOT

if TYPE_CHECKING:
    from flask import Flask

_SHORT = ["--logins", "30", "--users", "6"]
_FEW = ["--logins", "20", "--users", "4"]
_FAULTY = [*_FEW, "--workers", "1", "--app", "test_soak:faulty()"]


def soak(*options: str) -> tuple[int, str]:
    """Run one; return its exit status, and what it said."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.soak", "--seed", "3", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=120)
        finally:
            process.terminate()
    return process.returncode, said


@pytest.fixture(scope="module")
def soaks() -> Iterator[list[Future[tuple[int, str]]]]:
    """Two that run side by side, since they mostly wait; one of a faulty app.

    The other is with Redis where there is one, since it has more to disturb.
    """
    in_redis = ["--redis"] if shutil.which("redis-server") else []
    with ThreadPoolExecutor(2) as pool:
        yield [pool.submit(soak, *_SHORT, *in_redis), pool.submit(soak, *_FAULTY)]


def test_many_disturbed_logins_leave_nothing_behind(
    soaks: list[Future[tuple[int, str]]],
) -> None:
    status, said = soaks[0].result()

    assert status == 0, said
    assert "| logins | 30 |" in said
    assert "Nothing wrong." in said


def test_a_soak_names_what_is_wrong_with_an_app(
    soaks: list[Future[tuple[int, str]]],
) -> None:
    status, said = soaks[1].result()

    assert status == 1, said
    for words in (
        r"user0000, login \d+: / shows user0001 to user0000",
        r"user0001, login \d+: a copy of the cookie is still user0001 after a logout",
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
