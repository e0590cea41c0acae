"""What the stories need: a tenant, the app on a socket, visitors, a clock."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flask import Flask
from werkzeug.serving import make_server

from auth0_flask.tenant import Tenant
from redis_server import RedisServer
from servers import REVOCATIONS
from services import path_of
from shop import make_shop
from visitor import Visitor

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from playwright.sync_api import Browser

    from sdk_calls import Caller

pytest_plugins = ["leaks"]

#: Files that take long: they come first, so that the end does not wait for one of them.
LONG = {
    *("package", "soak", "readme", "pages", "drop_in", "browser", "servers"),
    *("same_behaviour", "redis", "tenant_in_use", "commands"),
}

# each of a hundred processes would compile all anew
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# httpcore looks for it at every request, and whether it is there takes long to tell
if not find_spec("sniffio"):
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # this is how to say so

_tenant = Tenant()
_listener = socket.create_server(("127.0.0.1", 0))
SITE = f"http://localhost:{_listener.getsockname()[1]}"


def pytest_configure(config: pytest.Config) -> None:
    """Start the tenant before any test imports ``auth``, which reads the settings."""
    import hypothesis

    # the same in every run, unless ``--hypothesis-seed`` is given
    fixed = config.getoption("--hypothesis-seed", None) is None
    hypothesis.settings.register_profile(
        "ours", derandomize=fixed, database=None, deadline=None, print_blob=True
    )
    hypothesis.settings.load_profile("ours")
    # a run in the background of a script ignores Ctrl-C, and so would what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # what one test left unwritten is tried on while others read their logs
    errors = logging.getLogger("auth0_flask.errors")
    errors.addFilter(lambda record: record.threadName != "auth0-retries")
    _tenant.start()
    os.environ.update(_tenant.environ(redirect_uri=f"{SITE}/callback"))
    os.environ["AUTH0_REVOCATIONS_PATH"] = REVOCATIONS
    os.environ["AUTH0_SCOPE"] = "openid profile email offline_access"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have a process more than there are cores, since tests wait for much."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


def pytest_unconfigure() -> None:
    _tenant.stop()
    _listener.close()


@pytest.fixture
def tenant() -> Iterator[Tenant]:
    """The local tenant, without what another test asked of it."""
    from auth import auth0

    _tenant.reset()
    auth0.verifier._refetched_at.clear()  # others may have used up what is allowed
    yield _tenant
    _tenant.reset()


@pytest.fixture(scope="session")
def app() -> Flask:
    """The app, as anybody runs it, and views that hand out access tokens."""
    from with_tokens import create

    return create()


@pytest.fixture
def shop() -> Flask:
    """An app made as the README says, with Flask's defaults."""
    import auth

    return make_shop(auth)


@pytest.fixture
def caller(shop: Flask, tenant: Tenant) -> Caller:
    """Somebody at a browser of the shop, for whom it calls the SDK."""
    from sdk_calls import Caller

    return Caller(shop, tenant)


@pytest.fixture(scope="session")
def site(app: Flask) -> Iterator[str]:
    """The app on a real socket; the address to browse to."""
    fd = _listener.fileno()
    server = make_server("127.0.0.1", 0, _closing(app), threaded=True, fd=fd)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield SITE
    server.shutdown()
    thread.join()


def _closing(app: Flask) -> WSGIApplication:
    """Close what an app returns, which Werkzeug forgets where a browser hangs up."""

    def call(environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        with closing(app(environ, start)) as answer:  # type: ignore[type-var]  # it can
            yield from answer

    return call


@pytest.fixture(scope="session")
def trust() -> ssl.SSLContext:
    """What trusts the tenant's certificate."""
    return ssl.create_default_context(cafile=str(_tenant.ca_file))


@pytest.fixture
async def visitors(site: str, tenant: Tenant) -> AsyncIterator[Callable[..., Visitor]]:
    """Make visitors, each with a browser of their own."""
    made: list[Visitor] = []

    def visitor(username: str = "alice", *, at: str = site) -> Visitor:
        made.append(Visitor(at, username))
        return made[-1]

    yield visitor
    await asyncio.gather(*(visitor.http.aclose() for visitor in made))


@pytest.fixture
def alice(visitors: Callable[..., Visitor]) -> Visitor:
    return visitors("alice")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, as the machine has it; in a file of which no test is async."""
    from playwright.sync_api import sync_playwright

    path = path_of("chromium", "chromium-browser", "google-chrome")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def redis_server(_redis: RedisServer) -> RedisServer:
    """A redis-server with nothing in it."""
    _redis.say("FLUSHALL")
    return _redis


@pytest.fixture
def own_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server of the test's own, that it may spoil, or give options to."""
    server = RedisServer(tmp_path, *getattr(request, "param", ())).start()
    yield server
    server.kill()


class Clock:
    """A clock that tests set forward; it shifts ``time.time`` for all of the app."""

    def __init__(self) -> None:
        self.offset, self._real = 0.0, time.time

    def time(self) -> float:
        return self._real() + self.offset

    def forward(self, seconds: float) -> None:
        self.offset += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(time, "time", (clock := Clock()).time)
    return clock
