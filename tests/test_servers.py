"""The app under the servers that people run it with."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence

import pytest

from auth0_flask.tenant import Tenant
from servers import FLASK_RUN, GRANIAN, GUNICORN, flask, free_port, serving
from visitor import Visitor


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (FLASK_RUN, signal.SIGINT),
        (FLASK_RUN, signal.SIGTERM),  # as in a container
        (GUNICORN, signal.SIGINT),
        (GRANIAN, signal.SIGINT),
    ],
)
async def test_many_users_log_in_at_once_and_then_it_ends_at_once(
    visitors: Callable[..., Visitor],
    tenant: Tenant,
    command: list[str],
    how: signal.Signals,
) -> None:
    names = [f"user{number}" for number in range(16)]
    for name in names:
        tenant.add_user(name)
    port = free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    with serving(command, environment, port) as server:
        everybody = [visitors(name, at=server.site) for name in names]
        await asyncio.gather(*(visitor.login() for visitor in everybody))
        seen = await asyncio.gather(*(visitor.claims() for visitor in everybody))
        assert [user and user["sub"] for user in seen] == [f"auth0|{n}" for n in names]
        await asyncio.gather(*(visitor.http.aclose() for visitor in everybody))
        server.process.send_signal(how)
        server.process.wait(20)  # it took 30 where a thread was waited for


RUN, CHECK = ("run", "--port", "1"), ("auth0", "check")
NO_PROXY = "https_proxy is not a proxy that can be used. Set an address"
NAMES = "DOMAIN", "CLIENT_ID", "CLIENT_SECRET", "SECRET", "REDIRECT_URI"


@pytest.mark.parametrize(
    ("words", "wrong", "said"),
    [
        (RUN, None, [f"- AUTH0_{name} " for name in NAMES]),
        (RUN, {"SSL_CERT_FILE": "x.pem"}, ["SSL_CERT_FILE cannot be read. Name a"]),
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
