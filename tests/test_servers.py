"""The app under the servers that people run it with."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import filterfalse
from pathlib import Path

import httpx
import pytest

from auth0_flask.tenant import Fault, Tenant
from servers import FLASK_RUN, GRANIAN, GUNICORN, free_port, run, serving
from visitor import Visitor


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (FLASK_RUN, signal.SIGINT),
        (FLASK_RUN, signal.SIGTERM),  # as in a container
        ([sys.executable, "app.py", "--port", "{port}"], signal.SIGINT),
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


@pytest.mark.parametrize("command", [GUNICORN, GRANIAN], ids=["gunicorn", "granian"])
async def test_a_restart_refuses_no_request_and_a_login_under_way_completes(
    visitors: Callable[..., Visitor], tenant: Tenant, command: list[str]
) -> None:
    """As docs/production.md promises of ``kill -HUP``."""
    port = free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    # with --preload, gunicorn would go on with the code it has
    loads_anew = [word for word in command if word != "--preload"]
    with serving(loads_anew, environment, port) as server:
        main = server.process.pid

        def workers() -> set[str]:
            return {*Path(f"/proc/{main}/task/{main}/children").read_text().split()}

        def stays(pid: str) -> bool:  # since Python 3.14 one serves multiprocessing
            return "tracker import" in Path(f"/proc/{pid}/cmdline").read_text()

        alice, before = visitors(at=server.site), {*filterfalse(stays, workers())}
        back = await alice.choose(await alice.start(), username="alice")
        tenant.requests.clear()
        tenant.fail("token", Fault.slow(1.0))
        callback = asyncio.create_task(alice.get(back.headers["Location"]))
        while not tenant.count("/oauth/token"):  # noqa: ASYNC110 - it has threads
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGHUP)
        give_up = time.monotonic() + 30
        while workers() & before:
            assert time.monotonic() < give_up, "the old workers are still there"
            async with httpx.AsyncClient(trust_env=False, timeout=20) as others:
                assert (await others.get(f"{server.site}/healthz")).text == "ok"

        answer = await callback
        assert (answer.status_code, answer.headers["Location"]) == (302, "/")
        assert ((await alice.claims()) or {})["sub"] == "auth0|alice"
        await alice.http.aclose()  # a server waits for who stays


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
        (("routes",), None, ["/profile", "flask auth0 check says what"]),  # goes on
    ],
)
def test_a_wrong_setting_is_told_by_its_name_at_start(
    tenant: Tenant,
    words: Sequence[str],
    wrong: Mapping[str, str] | None,
    said: Sequence[str],
) -> None:
    environment = {} if wrong is None else {**tenant.environ(), **wrong}
    status = int(words != ("routes",))
    shown = run(FLASK_RUN[0], *words, env=environment, status=status)
    assert [each for each in said if each not in shown] == []
    assert "Traceback" not in shown
    assert "Warning" not in shown
