"""The cookies, addresses and settings of an app as it is run in production."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from auth0_flask.tenant import Tenant
from conftest import Clock
from servers import BIN, GUNICORN, Server, free_port, serving
from visitor import Visitor

Visitors = Callable[..., Visitor]


@contextmanager
def deployed(tenant: Tenant, callback: str, **more: str) -> Iterator[Server]:
    """Serve the app with two workers and these settings."""
    port = free_port()
    environment = tenant.environ(redirect_uri=callback.format(port=port))
    with serving(GUNICORN, {**environment, **more}, port) as server:
        yield server


CALLBACK, HTTPS = "http://localhost:{port}/callback", "https://app.example.com/callback"


@pytest.mark.parametrize(
    ("callback", "more", "name", "attributes"),
    [
        (CALLBACK, {}, "session_auth0", {"path=/"}),
        (HTTPS, {}, "__Host-session_auth0", {"secure", "path=/"}),
        (
            "https://app.example.com/sub/callback",
            {"FLASK_APPLICATION_ROOT": "/sub"},
            "__Secure-session_auth0",
            {"secure", "path=/sub"},
        ),
        (
            HTTPS,
            {"FLASK_SESSION_COOKIE_DOMAIN": "example.com"},
            "__Secure-session_auth0",
            {"secure", "path=/", "domain=example.com"},
        ),
        (
            HTTPS,
            {"FLASK_SESSION_COOKIE_NAME": "mine"},
            "__Host-mine_auth0",
            {"secure", "path=/"},
        ),
    ],
    ids=["http", "https", "below a path", "a domain", "a name"],
)
def test_cookies_are_as_safe_as_the_address_allows(
    tenant: Tenant,
    callback: str,
    more: dict[str, str],
    name: str,
    attributes: set[str],
) -> None:
    with deployed(tenant, callback, **more) as server:
        answer = httpx.get(f"{server.site}/login")

    cookie, *found = answer.headers["Set-Cookie"].split("; ")
    assert re.fullmatch(rf"{name}_tx\d", cookie.partition("=")[0])
    kept = {"httponly", "samesite=lax"} | attributes
    found = [attribute.lower() for attribute in found]
    assert {a for a in found if not a.startswith(("expires", "max-age"))} == kept


async def test_below_a_path_of_a_bigger_site(
    tenant: Tenant, visitors: Visitors
) -> None:
    port = free_port()
    callback = f"http://localhost:{port}/sub/callback"
    command = [str(BIN / "gunicorn"), "--bind", "127.0.0.1:{port}"]
    command += ["--threads", "4", "--pythonpath", "tests", "mounted:application"]
    with serving(command, tenant.environ(redirect_uri=callback), port) as server:
        alice = visitors("alice", at=server.site)

        profile = await alice.login("/sub/profile")
        assert profile.url.path == "/sub/profile"
        assert "alice@example.com" in profile.text
        assert 'href="/sub/logout"' in profile.text
        home = await alice.go("/sub/logout")
        assert home.url.path == "/sub/"
        assert alice.cookies == {}

        elsewhere = server.site.replace("localhost", "127.0.0.1")
        hop = await alice.http.get(f"{elsewhere}/sub/login?remember=0")
        assert hop.headers["Location"] == f"{server.site}/sub/login?remember=0"

        ended = await alice.login("/sub/login?return_to=/sub/login")
        assert ended.url.path == "/sub/"


@pytest.mark.parametrize(("trusted", "believed"), [(0, None), (1, "near"), (2, "far")])
def test_proxies_are_believed_as_far_as_they_are_trusted(
    tenant: Tenant, trusted: int, believed: str | None
) -> None:
    with deployed(tenant, CALLBACK, TRUSTED_PROXIES=str(trusted)) as server:
        here = server.site.replace("localhost", "127.0.0.1")
        for name in ("near", "far"):
            said = [server.site if name == n else here for n in ("far", "near")]
            hosts = ", ".join(said).replace("http://", "")
            answer = httpx.get(f"{here}/login", headers={"X-Forwarded-Host": hosts})
            # a login on another name than the callback's goes there before it begins
            starts = "/authorize?" in answer.headers["Location"]
            assert starts == (name == believed), name


async def test_a_secret_is_changed_without_signing_anybody_out(
    tenant: Tenant, visitors: Visitors
) -> None:
    old, new = "o" * 40, "n" * 40
    alice, bob = visitors("alice"), visitors("bob")
    port = free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    with serving(GUNICORN, {**environment, "AUTH0_SECRET": old}, port) as server:
        alice.site = bob.site = server.site
        await alice.login()
        page = await bob.start()

    with serving(GUNICORN, {**environment, "AUTH0_SECRET": f"{new} {old}"}, port):
        assert await alice.claims()
        await bob.follow(await bob.choose(page, username="bob"))
        assert await bob.claims()  # begun under the old one, encrypted under the new

    with serving(GUNICORN, {**environment, "AUTH0_SECRET": new}, port):
        assert await bob.claims()
        assert await alice.claims() is None  # she was not back in between
        assert (await alice.get("/")).status_code == 200


async def test_a_machine_that_lacks_the_newest_secret_leaves_sessions_alone(
    tenant: Tenant, visitors: Visitors
) -> None:
    alice = visitors("alice")
    with (
        deployed(tenant, CALLBACK, AUTH0_SECRET=f"{'n' * 40} {'o' * 40}") as changed,
        deployed(tenant, CALLBACK, AUTH0_SECRET="o" * 40) as waiting,
    ):
        alice.site = changed.site  # cookies go to both: a browser ignores the port
        await alice.login()
        elsewhere = await alice.get(f"{waiting.site}/profile")

        assert elsewhere.status_code == 302
        assert "Set-Cookie" not in elsewhere.headers
        assert await alice.claims()


@pytest.mark.parametrize("remember", ["0", "1"])
async def test_a_visitor_may_ask_not_to_be_remembered(
    alice: Visitor, remember: str
) -> None:
    page = await alice.start(f"/login?remember={remember}")

    back = await alice.choose(page, username="alice")
    answer = await alice.http.get(back.headers["Location"])

    cookies = answer.headers.get_list("Set-Cookie")
    session = next(cookie for cookie in cookies if cookie.startswith("session_auth0="))
    assert ("Expires" in session) == (remember == "1")
    assert await alice.claims()


async def test_most_answers_set_no_cookie(alice: Visitor, clock: Clock) -> None:
    await alice.login()

    for _ in range(5):
        assert "Set-Cookie" not in (await alice.get("/profile")).headers
    clock.forward(86_400 / 20 + 1)
    assert "Set-Cookie" in (await alice.get("/profile")).headers
    assert "Set-Cookie" not in (await alice.get("/profile")).headers
