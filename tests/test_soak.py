"""A short soak."""

from __future__ import annotations

import shutil
import sys

from servers import run


def test_many_disturbed_logins_leave_nothing_behind() -> None:
    in_redis = ["--redis"] if shutil.which("redis-server") else []  # more to disturb
    few = "--seed", "3", "--logins", "30", "--users", "6"
    said = run(sys.executable, "-m", "bench.soak", *few, *in_redis, env={})

    assert "| logins | 30 |" in said
    assert "Nothing wrong." in said
