"""The app under the servers that people run it with."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from auth0_flask.tenant import Fault, Tenant
from servers import (
    FLASK_RUN,
    GRANIAN,
    GUNICORN,
    Server,
    flask,
    free_port,
    serving,
)
from visitor import Visitor

Visitors = Callable[..., Visitor]
USERS = 16
#: Seconds; it took 30 where a thread was waited for.
AT_ONCE = 20


@pytest.fixture
def server(request: pytest.FixtureRequest, tenant: Tenant) -> Iterator[Server]:
    """A server against the tenant, started by the command that the test names."""
    port = free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    with serving(request.param, environment, port) as server:
        yield server


async def _log_in_again_and_again(visitor: Visitor, times: int) -> list[str | None]:
    seen = []
    for _ in range(times):
        for name in visitor.cookies:
            visitor.http.cookies.delete(name)
        await visitor.login()
        claims = await visitor.claims() or {}
        seen.append(claims.get("sub"))
    return seen


@pytest.mark.parametrize(
    ("server", "times", "how"),
    [
        (FLASK_RUN, 6, signal.SIGINT),
        (FLASK_RUN, 1, signal.SIGTERM),
        (GUNICORN, 6, signal.SIGINT),
        (GRANIAN, 6, signal.SIGINT),
    ],
    ids=["flask run", "flask run in a container", "gunicorn", "granian"],
    indirect=["server"],
)
async def test_many_users_log_in_at_once_and_then_it_ends_at_once(
    server: Server, visitors: Visitors, tenant: Tenant, times: int, how: signal.Signals
) -> None:
    names = [f"user{number}" for number in range(USERS)]
    for name in names:
        tenant.add_user(name)
    everybody = [visitors(name, at=server.site) for name in names]

    seen = await asyncio.gather(*(_log_in_again_and_again(v, times) for v in everybody))

    assert seen == [[f"auth0|{name}"] * times for name in names]
    await asyncio.gather(*(visitor.http.aclose() for visitor in everybody))
    assert server.stop(how) < AT_ONCE


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "server", [GUNICORN, GRANIAN], ids=["gunicorn", "granian"], indirect=True
)
async def test_a_login_under_way_is_finished_by_a_server_that_stops_or_restarts(
    server: Server, visitors: Visitors, tenant: Tenant, how: signal.Signals
) -> None:
    alice = visitors(at=server.site)
    back = await alice.choose(await alice.start(), username="alice")
    tenant.fail("token", Fault.slow(1.0))
    arriving = asyncio.create_task(alice.get(back.headers["Location"]))
    while not any(seen.path == "/oauth/token" for seen in tenant.requests):  # noqa: ASYNC110 - the tenant has threads, no events
        await asyncio.sleep(0.01)
    server.process.send_signal(how)

    answer = await arriving

    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
    if how is signal.SIGHUP:
        assert await alice.claims()
    await alice.http.aclose()  # a server waits for who stays
    if how is signal.SIGTERM:
        server.process.wait(AT_ONCE)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_wrong_file_of_certificates_is_told_by_its_variable(
    tenant: Tenant, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "certificates.pem"
    if content:
        path.write_text(content)
    environment = {**tenant.environ(), "SSL_CERT_FILE": str(path)}

    ended = flask(["run", "--port", str(free_port())], environment)

    assert ended.returncode == 1
    assert "SSL_CERT_FILE cannot be read. Name a file" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "https_proxy"])
def test_a_proxy_that_cannot_be_used_is_told_by_its_variable(
    tenant: Tenant, name: str
) -> None:
    environment = {**tenant.environ(), name: "socks://127.0.0.1:7890"}

    ended = flask(["auth0", "check"], environment)

    assert ended.returncode == 1
    assert f"{name} is not a proxy that can be used. Set an address" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_flask_command_ends_at_once(tenant: Tenant) -> None:
    began = time.monotonic()
    ended = flask(["routes"], tenant.environ())

    assert "/callback" in ended.stdout
    assert ended.returncode == 0
    assert time.monotonic() - began < 25  # a hang, not a speed


def test_flask_run_without_settings_says_what_is_missing() -> None:
    ended = flask(["run", "--port", str(free_port())], {})

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr
    for name in (
        "AUTH0_DOMAIN",
        "AUTH0_CLIENT_ID",
        "AUTH0_CLIENT_SECRET",
        "AUTH0_SECRET",
        "AUTH0_REDIRECT_URI",
    ):
        assert f"- {name} " in ended.stderr


def test_other_flask_commands_go_on_without_settings() -> None:
    ended = flask(["routes"], {})

    assert ended.returncode == 0
    assert "/profile" in ended.stdout
    assert "AUTH0_DOMAIN is missing" in ended.stderr


def test_a_samesite_that_would_loop_is_told_at_start(tenant: Tenant) -> None:
    environment = {**tenant.environ(), "FLASK_SESSION_COOKIE_SAMESITE": "Strict"}

    ended = flask(["run", "--port", str(free_port())], environment)

    assert ended.returncode == 1
    assert "SESSION_COOKIE_SAMESITE is Strict" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_number_of_proxies_that_is_none_is_told_at_start(tenant: Tenant) -> None:
    environment = {**tenant.environ(), "TRUSTED_PROXIES": "all"}

    ended = flask(["run", "--port", str(free_port())], environment)

    assert ended.returncode == 1
    assert "TRUSTED_PROXIES is not a number" in ended.stderr
    assert "Traceback" not in ended.stderr
