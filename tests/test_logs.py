"""What is in a log, and what is not: outages are, secrets are not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from flask import Flask

import auth
from auth0_flask import StoreUnavailable
from auth0_flask.stores.redis import connect
from redis_server import RedisServer
from servers import ROOT, clean_environment

SAID = {
    *("access_token in the log of some", "credentials in the log of some"),
    *("code_verifier in the log of some", "refresh_token in a warning"),
    *("id_token in an exception", "cookie in an exception", "cookie in a page"),
    *("AUTH0_CLIENT_SECRET in what a program said", "code in what was printed"),
    "AUTH0_SECRET in what a server said",
}


def test_a_run_that_says_a_secret_fails_and_tells_which_where_and_when() -> None:
    """`leaks.py` looks at every run of these tests."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    more = ["-p", "xdist", "-p", "asyncio", "--numprocesses", "1"]
    ended = subprocess.run(
        [*command, *more, "tests/said_on_purpose.py"],
        cwd=ROOT,
        env=clean_environment({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 1, ended.stdout
    assert "9 passed" in ended.stdout
    told = ended.stdout.partition("secrets that were said")[2].splitlines()
    found = [line.split(", first in ") for line in told if ", first in " in line]
    assert {what for what, _ in found} == SAID
    for what, test in found:
        kind = what.partition(" ")[0]
        assert test == f"tests/said_on_purpose.py::test_it_is_said[{kind}]"


def test_an_outage_is_logged_with_its_reason_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, app, now = RedisServer(tmp_path).start(), Flask("shop"), time.monotonic
    monkeypatch.setattr(StoreUnavailable, "_logged_at", {})
    with connect(server.url) as redis:
        auth.init_app(app, redis=redis)
        app.add_url_rule("/me", "me", lambda: dict(auth.auth_user))
        client = app.test_client()
        auth.login_as(client)
        server.kill()

        for times in (1, 2):
            for _ in range(3):
                assert client.get("/me").status_code == 503
            logged = [r for r in caplog.records if "store is unavail" in r.getMessage()]
            assert [r.levelname for r in logged] == ["ERROR"] * times
            assert "(sessions_unavailable): ConnectionError: " in logged[-1].message
            monkeypatch.setattr(time, "monotonic", lambda: now() + 61)
