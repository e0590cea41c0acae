"""A short soak, and that it notices what it is there to notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servers import ROOT

if TYPE_CHECKING:
    from flask import Flask

#: Redis has more to disturb.
_IN_REDIS = ["--redis"] if shutil.which("redis-server") else []
_FAULTY = ["--workers", "1", "--app", "test_soak:faulty()"]


@pytest.mark.parametrize(
    ("options", "status", "what"),
    [
        (_IN_REDIS, 0, "| logins | 30 |"),
        (_FAULTY, 1, "/ shows user0001 to user0000"),
    ],
)
def test_many_disturbed_logins_leave_nothing_behind(
    options: list[str], status: int, what: str
) -> None:
    few = "--seed", "3", "--logins", "30", "--users", "6"
    command = [sys.executable, "-m", "bench.soak", *few, *options]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    soak = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert soak.returncode == status, soak.stdout + soak.stderr
    assert what in soak.stdout


def faulty() -> Flask:
    """Return an app that greets somebody else; for gunicorn."""
    from app import create_app

    made = create_app()
    home = made.ensure_sync(made.view_functions["home"])
    made.view_functions["home"] = lambda: str(home()).replace("User0000", "User0001")
    return made
