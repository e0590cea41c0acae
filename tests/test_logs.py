"""What is in a log, and what is not: outages are, secrets are not.

`leaks.py` looks at every run of these tests; here is one that says what it must not.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

import auth
from auth0_flask import StoreUnavailable
from auth0_flask.stores.redis import connect
from auth0_flask.tenant import Tenant
from redis_server import RedisServer
from servers import ROOT, clean_environment
from visitor import Shopper
from watch import Watch

SAID = {
    "access_token in the log of some, first in test_logged_at_the_lowest_level",
    "id_token in an exception, first in test_raised_before_what_is_raised",
    "cookie in an exception, first in test_raised_in_a_view",
    "refresh_token in a warning, first in test_warned",
    "code in what was printed, first in test_printed_in_part",
    "code_verifier in what a program said, first in test_said_by_a_program",
    "AUTH0_SECRET in what a server said, first in test_said_by_a_server",
    "AUTH0_CLIENT_SECRET in a page, first in test_shown_on_a_page",
    "AUTH0_CLIENT_SECRET in an exception, first in test_shown_on_a_page",
    "credentials in the log of some, first in test_logged_as_it_is_sent",
}


@pytest.mark.parametrize("processes", ["0", "1"])  # a file's tests stay in one
def test_a_run_that_says_a_secret_fails_and_tells_which_where_and_when(
    processes: str,
) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "xdist", "-p", "asyncio", "--numprocesses", processes),
            "tests/said_on_purpose.py",
        ],
        cwd=ROOT,
        env=clean_environment({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1, ended.stdout
    assert "9 passed" in ended.stdout
    told = ended.stdout.partition("secrets that were said")[2].splitlines()
    lines = [line.replace("tests/said_on_purpose.py::", "") for line in told]
    assert {line for line in lines if ", first in " in line} == SAID


@pytest.fixture
def watch() -> Watch:
    """One that knows of a secret."""
    watch = Watch()
    watch.note("token", "".join(map(chr, range(65, 91))))
    return watch


@pytest.mark.parametrize(
    "said",
    [
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "it was 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'.",
        "--BCDEFGHIJKLMNOPQRSTUVWXY--",
        "ABCDEFGHIJKLMNOP",
        "KLMNOPQRSTUVWXYZ",
        "GET /callback?code=ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    ],
)
def test_a_secret_is_found_in_whole_and_in_part(watch: Watch, said: str) -> None:
    watch.hear_server("a log", said)

    assert watch.leaks() == {"token in a log, first in no test"}


@pytest.mark.parametrize(
    "said",
    [
        "ABCDEFGHIJKLMNO",
        "abcdefghijklmnopqrstuvwxyz",
        '"GET /callback?code=ABCDEFGHIJKLMNOPQRSTUVWXYZ&state=x HTTP/1.1" 302 -',
    ],
)
def test_what_says_too_little_and_a_callback_in_an_access_log_is_none(
    watch: Watch, said: str
) -> None:
    watch.hear_server("a log", said)

    assert watch.leaks() == set()


def test_what_many_secrets_have_in_common_is_none(watch: Watch) -> None:
    for number in range(30):
        watch.note("token", f"eyJhbGciOiJSUzI1NiIsInR5cCI6IkpX.{number:032d}")

    watch.hear("a log", "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpX")

    assert watch.leaks() == set()


def test_an_exception_is_heard_with_all_that_led_to_it(watch: Watch) -> None:
    first, second, third = ValueError("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), ValueError(), None
    second.cause = first  # type: ignore[attr-defined]  # as the SDK notes it
    try:
        try:
            raise second
        except ValueError:
            raise KeyError("x") from None
    except KeyError as error:
        third = error
    first.__cause__ = third  # round in a circle

    watch.hear_exception(third)

    assert watch.leaks() == {"token in an exception, first in no test"}


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
            assert len(logged) == times
            assert (
                "(sessions_unavailable): ConnectionError: " in logged[-1].getMessage()
            )
            assert logged[-1].levelname == "ERROR"
            monkeypatch.setattr(time, "monotonic", lambda: now() + 61)


def test_of_what_the_provider_says_little_is_shown_and_none_logged(
    shop: Flask, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    shopper = Shopper(shop)
    (state,) = parse_qs(urlsplit(shopper.start()).query)["state"]
    said = {"error": "x" * 500, "error_description": "secret " * 100}

    page = shopper.client.get("/callback", query_string={"state": state, **said})

    assert page.text.count("secret") == 43  # 300 characters
    assert "login_refused" in caplog.text
    assert "secret" not in caplog.text
    assert "x" * 60 not in caplog.text
