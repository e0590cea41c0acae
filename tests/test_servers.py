"""The app under the servers that people run it with."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from auth0_flask.tenant import Fault, Tenant
from servers import FLASK_RUN, GRANIAN, GUNICORN, Server, flask, free_port, serving
from visitor import Visitor

Visitors = Callable[..., Visitor]
#: Seconds; it took 30 where a thread was waited for.
AT_ONCE = 20


@pytest.fixture
def server(request: pytest.FixtureRequest, tenant: Tenant) -> Iterator[Server]:
    """A server against the tenant, started by the command that the test names."""
    port = free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    with serving(request.param, environment, port) as server:
        yield server


@pytest.mark.parametrize(
    ("server", "how"),
    [
        (FLASK_RUN, signal.SIGINT),
        (FLASK_RUN, signal.SIGTERM),  # as in a container
        (GUNICORN, signal.SIGINT),
        (GRANIAN, signal.SIGINT),
    ],
    indirect=["server"],
)
async def test_many_users_log_in_at_once_and_then_it_ends_at_once(
    server: Server, visitors: Visitors, tenant: Tenant, how: signal.Signals
) -> None:
    names = [f"user{number}" for number in range(16)]
    for name in names:
        tenant.add_user(name)
    everybody = [visitors(name, at=server.site) for name in names]
    await asyncio.gather(*(visitor.login() for visitor in everybody))
    seen = await asyncio.gather(*(visitor.claims() for visitor in everybody))
    assert [claims and claims["sub"] for claims in seen] == [
        f"auth0|{n}" for n in names
    ]
    await asyncio.gather(*(visitor.http.aclose() for visitor in everybody))
    server.process.send_signal(how)
    server.process.wait(AT_ONCE)


@pytest.mark.parametrize("server", [GUNICORN, GRANIAN], indirect=True)
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


RUN, CHECK = ("run", "--port", "1"), ("auth0", "check")
NO_FILE = "SSL_CERT_FILE cannot be read. Name a file"
NO_PROXY = "https_proxy is not a proxy that can be used. Set an address"
NAMES = "DOMAIN", "CLIENT_ID", "CLIENT_SECRET", "SECRET", "REDIRECT_URI"


@pytest.mark.parametrize(
    ("words", "wrong", "said"),
    [
        (RUN, None, [f"- AUTH0_{name} " for name in NAMES]),
        (RUN, {"SSL_CERT_FILE": "no-such-file.pem"}, [NO_FILE]),
        (RUN, {"SSL_CERT_FILE": __file__}, [NO_FILE]),
        (RUN, {"TRUSTED_PROXIES": "all"}, ["TRUSTED_PROXIES is not a number"]),
        (RUN, {"FLASK_SESSION_COOKIE_SAMESITE": "Strict"}, ["is Strict"]),  # would loop
        (CHECK, {"https_proxy": "socks://127.0.0.1:7890"}, [NO_PROXY]),
        (("routes",), None, ["/profile", "AUTH0_DOMAIN is missing"]),  # goes on
    ],
)
def test_a_wrong_setting_is_told_by_its_name_at_start(
    tenant: Tenant,
    words: Sequence[str],
    wrong: Mapping[str, str] | None,
    said: Sequence[str],
) -> None:
    environment = {} if wrong is None else {**tenant.environ(), **wrong}
    ended = flask(words, environment)
    assert ended.returncode == (words != ("routes",))
    shown = ended.stdout + ended.stderr
    assert [each for each in said if each not in shown] == []
    assert "Traceback" not in shown
    assert "Warning" not in shown
