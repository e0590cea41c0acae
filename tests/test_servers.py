"""The app under the servers that people run it with."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from auth0_flask.tenant import Fault, Tenant
from servers import FLASK_RUN, GRANIAN, GUNICORN, Server, flask, free_port, serving
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
        (FLASK_RUN, 3, signal.SIGINT),
        (FLASK_RUN, 1, signal.SIGTERM),
        (GUNICORN, 3, signal.SIGINT),
        (GRANIAN, 3, signal.SIGINT),
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


@pytest.mark.parametrize(
    "server", [GUNICORN, GRANIAN], ids=["gunicorn", "granian"], indirect=True
)
async def test_a_login_under_way_is_finished_by_a_server_that_stops_or_restarts(
    server: Server, visitors: Visitors, tenant: Tenant
) -> None:
    for how in (signal.SIGHUP, signal.SIGTERM):
        alice = visitors(at=server.site)
        back = await alice.choose(await alice.start(), username="alice")
        tenant.requests.clear()
        tenant.fail("token", Fault.slow(1.0))
        arriving = asyncio.create_task(alice.get(back.headers["Location"]))
        while not tenant.count("/oauth/token"):  # noqa: ASYNC110 - the tenant has threads, no events
            await asyncio.sleep(0.01)
        server.process.send_signal(how)
        answer = await arriving
        assert (answer.status_code, answer.headers["Location"]) == (302, "/")
        if how is signal.SIGHUP:
            assert await alice.claims()
        await alice.http.aclose()  # a server waits for who stays
    server.process.wait(AT_ONCE)


RUN = ("run", "--port", "{port}")
NO_SETTINGS = (
    *("- AUTH0_DOMAIN ", "- AUTH0_CLIENT_ID ", "- AUTH0_CLIENT_SECRET "),
    *("- AUTH0_SECRET ", "- AUTH0_REDIRECT_URI "),
)
NO_FILE = "SSL_CERT_FILE cannot be read. Name a file"
NO_PROXY = "is not a proxy that can be used. Set an address"
SOCKS = "socks://127.0.0.1:7890"
MISSPELLED = "AUTH0_CLIENT_ID is missing", "Did you mean AUTH0_CLIENT_ID?"
STRICT = {"FLASK_SESSION_COOKIE_SAMESITE": "Strict"}


@pytest.mark.parametrize(
    ("words", "wrong", "said"),
    [
        (RUN, None, NO_SETTINGS),
        (RUN, {"SSL_CERT_FILE": "no-such-file.pem"}, [NO_FILE]),
        (RUN, {"SSL_CERT_FILE": __file__}, [NO_FILE]),
        (RUN, {"TRUSTED_PROXIES": "all"}, ["TRUSTED_PROXIES is not a number"]),
        (["auth0", "check"], {"ALL_PROXY": SOCKS}, [f"ALL_PROXY {NO_PROXY}"]),
        (["auth0", "check"], {"https_proxy": SOCKS}, [f"https_proxy {NO_PROXY}"]),
        (RUN, STRICT, ["SESSION_COOKIE_SAMESITE is Strict"]),  # would loop
        (RUN, {"AUTH0_CLIENT_ID": "", "AUTH0_CLIENTID": "x"}, MISSPELLED),
    ],
)
def test_a_wrong_setting_is_told_by_its_name_at_start(
    tenant: Tenant,
    words: Sequence[str],
    wrong: Mapping[str, str] | None,
    said: Sequence[str],
) -> None:
    environment = {} if wrong is None else {**tenant.environ(), **wrong}
    port = str(free_port())
    ended = flask([word.format(port=port) for word in words], environment)
    assert ended.returncode == 1
    assert [each for each in said if each not in ended.stderr] == []
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr


def test_other_flask_commands_go_on_without_settings_and_end_at_once() -> None:
    began = time.monotonic()
    ended = flask(["routes"], {})
    assert ended.returncode == 0
    assert "/profile" in ended.stdout
    assert "AUTH0_DOMAIN is missing" in ended.stderr
    assert time.monotonic() - began < 25  # a hang, not a speed
