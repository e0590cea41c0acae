"""A short soak."""

from __future__ import annotations

import shutil
import subprocess
import sys

from servers import ROOT


def test_many_disturbed_logins_leave_nothing_behind() -> None:
    in_redis = ["--redis"] if shutil.which("redis-server") else []  # more to disturb
    few = "--seed", "3", "--logins", "30", "--users", "6"
    command = ["timeout", "120", sys.executable, "-m", "bench.soak", *few, *in_redis]
    soak = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert soak.returncode == 0, soak.stdout + soak.stderr
    assert "| logins | 30 |" in soak.stdout
    assert "Nothing wrong." in soak.stdout
