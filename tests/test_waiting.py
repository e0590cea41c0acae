"""A provider that answers slowly, endlessly or with far too much is an outage."""

from __future__ import annotations

import gc
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, ClassVar

import httpx
import pytest
from flask import Flask
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

from app import create_app
from auth import auth0
from auth0_flask.client import Auth0Client
from auth0_flask.tenant import Fault, Tenant
from shop import copy_of_auth, make_shop
from test_revocations import in_children
from visitor import Shopper

MEGABYTE = 1_000_000
#: What a request may take that waits for a provider as long as it may.
SECONDS = 8.0
API = "https://api.example/"
KEYS = "/.well-known/jwks.json"


class Provider:
    """The tenant, one of whose endpoints answers like this."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant, self.over = tenant, threading.Event()

    def drips(self, endpoint: str) -> None:
        """Send one byte a second."""

        def body() -> Iterator[bytes]:
            for byte in b'{"access_token": "' + b"x" * 60:
                if self.over.wait(1.0):
                    return
                yield bytes([byte])

        self._answer(endpoint, body)

    def pours(self, endpoint: str, megabytes: float = float("inf")) -> None:
        """Send so much, or without an end."""

        def body() -> Iterator[bytes]:
            yield b'{"access_token": "'
            sent, chunk = 0, b"x" * 100_000
            while sent < megabytes * MEGABYTE and not self.over.is_set():
                sent += len(chunk)
                yield chunk
            yield b'"}'

        self._answer(endpoint, body)

    def inflates(self, endpoint: str) -> None:
        """Send 200 MB in 200 KB."""
        self._answer(endpoint, lambda: [_BOMB], {"Content-Encoding": "gzip"})

    def _answer(
        self,
        endpoint: str,
        body: Callable[[], Iterable[bytes]],
        headers: dict[str, str] | None = None,
    ) -> None:
        def answer(*_: object) -> Response:
            return Response(body(), 200, headers, "application/json")

        self.tenant.fail(endpoint, Fault(answer), 4)


def _bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    parts = [b'{"access_token": "', *[b"x" * MEGABYTE] * 200, b'"}']
    return b"".join([*map(packer.compress, parts), packer.flush()])


_BOMB = _bomb()


@pytest.fixture
def provider(tenant: Tenant) -> Iterator[Provider]:
    provider = Provider(tenant)
    yield provider
    tenant.clear_faults()
    provider.over.set()
    auth0.verifier.forget()


def with_tokens(app: Flask) -> Flask:
    @app.get("/token")
    async def token() -> str:
        return await client_of(app).get_access_token(audience=API)

    return app


def client_of(app: Flask) -> Auth0Client:
    client: Auth0Client = app.extensions["auth0"].client
    return client


@pytest.fixture
def demo() -> Flask:
    return with_tokens(create_app())


class Peak:
    """How many bytes the memory of this process grows by, at most."""

    def __enter__(self) -> Peak:
        gc.collect()
        self._before, self._most, self._over = _resident(), 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return self._most - self._before

    def _look(self) -> None:
        while not self._over.wait(0.002):
            self._most = max(self._most, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


Ask = Callable[[], TestResponse]


def prepare(does: str, demo: Flask, tenant: Tenant) -> Ask:
    """Return what asks for something as somebody who is ready to do that."""
    alice = Shopper(demo)
    alice.client.environ_base["HTTP_ACCEPT"] = "application/json"
    if does in {"refresh", "userinfo"}:
        alice.login()
    paths = {"login": "/login", "refresh": "/token", "userinfo": "/api/userinfo"}
    path = alice.sign_in() if does == "callback" else paths.get(does, "")
    if does != "userinfo":
        client_of(demo).verifier.forget()
    if path:
        return lambda: alice.client.get(path)
    form = {"logout_token": tenant.logout_token(sub="auth0|alice")}
    return lambda: alice.client.post("/backchannel-logout", data=form)


#: Whose answer each of them waits for.
WAITS = [
    *(("login", "discovery"), ("callback", "discovery"), ("callback", "jwks")),
    *(("callback", "token"), ("refresh", "discovery"), ("refresh", "token")),
    *(("userinfo", "userinfo"), ("backchannel", "discovery"), ("backchannel", "jwks")),
]


def see_outage(answer: TestResponse) -> None:
    """See that it is the page for an outage, and that nobody lost a session."""
    assert answer.status_code == 502, answer.text
    assert answer.headers["Retry-After"]
    code = (answer.json or {})["code"]
    assert code in {"provider_unreachable", "invalid_response"}


def test_requests_of_a_process_share_a_connection_while_it_is_open(
    demo: Flask, tenant: Tenant
) -> None:
    """Each view has an event loop of its own."""
    ask = prepare("userinfo", demo, tenant)

    def connection() -> int:
        assert ask().status_code == 200
        return tenant.requests[-1].connection

    first = connection()
    assert [connection(), connection()] == [first, first]

    assert in_children(lambda: ask().status_code) == [200]
    assert tenant.requests[-1].connection != first
    assert connection() == first

    tenant.close_connections()
    assert connection() != first


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have names looked up by this."""
    look_up = socket.getaddrinfo

    def use(addresses: Callable[[str], Iterable[str]]) -> None:
        def found(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
            names = addresses(host.decode() if isinstance(host, bytes) else host)
            return [a for n in names for a in look_up(n, port, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", found)

    return use


def test_a_host_may_have_an_address_that_does_not_answer(
    tenant: Tenant, resolve: Callable[..., None]
) -> None:
    """As where IPv6 leads nowhere."""
    port = int(tenant.domain.partition(":")[2])
    with socket.create_server(("127.0.0.2", port), backlog=0) as full, ExitStack() as s:
        for _ in range(4):
            s.enter_context(waiting := socket.socket()).setblocking(False)
            waiting.connect_ex(full.getsockname())
        resolve(lambda _: ("127.0.0.2", "127.0.0.1"))
        tenant.close_connections()
        began = time.monotonic()
        shop = make_shop(copy_of_auth({}))
        assert shop.test_client().get("/login").status_code == 302

    assert 2 < time.monotonic() - began < 4.5


async def test_who_looks_up_a_name_does_not_wait_for_ever(
    resolve: Callable[..., None],
) -> None:
    over = threading.Event()
    resolve(lambda host: [host] if host != "slow.example" else over.wait(30) and [])
    client = copy_of_auth({"AUTH0_DOMAIN": "slow.example"}).auth0
    began = time.monotonic()
    with pytest.raises(httpx.ConnectTimeout):
        await client.verifier.metadata()

    over.set()
    assert time.monotonic() - began < SECONDS + 2


class Proxy(StreamRequestHandler):
    """Lets through what asks for it (RFC 9110 section 9.3.6), and notes the hosts."""

    hosts: ClassVar[list[str]] = []

    def handle(self) -> None:
        host = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        self.hosts.append(host)
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        name, port = host.split(":")
        with socket.create_connection((name, int(port))) as there:
            back = threading.Thread(target=_copy, args=(there, self.request))
            back.start()
            _copy(self.request, there)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_auth0_is_asked_through_the_proxy_of_the_environment(
    demo: Flask, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    Proxy.hosts.clear()
    with ThreadingTCPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever).start()
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_address[1]}")
        client_of(demo).verifier.forget()

        prepare("refresh", demo, tenant)

        proxy.shutdown()
    assert set(Proxy.hosts) == {tenant.domain}
    assert len(Proxy.hosts) >= 3  # discovery, the token, keys


def test_one_byte_a_second_is_an_outage(demo: Flask, provider: Provider) -> None:
    """At every endpoint; all at once, since each is waited for as long as it may be."""
    shop, tenant = with_tokens(make_shop(copy_of_auth({}))), provider.tenant
    asks = [
        (prepare(does, shop if of == "discovery" else demo, tenant), of)
        for does, of in WAITS
    ]
    keys_asked_for = tenant.count(KEYS) + 2
    for app in (shop, demo):
        client_of(app).verifier.forget()

    def timed(ask: Ask) -> tuple[TestResponse, float]:
        began = time.monotonic()
        return ask(), time.monotonic() - began

    with ThreadPoolExecutor(len(asks)) as pool:
        asked = []
        # who waits for the keys has discovery and a token by then
        for endpoints in ({"jwks"}, {"discovery", "token", "userinfo"}):
            for endpoint in sorted(endpoints):
                provider.drips(endpoint)
            asked += [pool.submit(timed, ask) for ask, of in asks if of in endpoints]
            while tenant.count(KEYS) < keys_asked_for:
                time.sleep(0.01)

    for answer, seconds in [each.result() for each in asked]:
        see_outage(answer)
        assert seconds < SECONDS + 2


@pytest.mark.parametrize("how", ["endless", "200 MB", "200 MB in 200 KB"])
@pytest.mark.parametrize(("does", "endpoint"), WAITS)
def test_an_answer_without_end_is_an_outage_and_takes_no_memory(
    demo: Flask, provider: Provider, does: str, endpoint: str, how: str
) -> None:
    ask = prepare(does, demo, provider.tenant)
    if how == "200 MB in 200 KB":
        provider.inflates(endpoint)
    else:
        provider.pours(endpoint, 200 if how == "200 MB" else float("inf"))

    began = time.monotonic()
    with Peak() as peak:
        answer = ask()

    assert time.monotonic() - began < SECONDS + 2
    see_outage(answer)
    assert peak.bytes < 12 * MEGABYTE
    if (does, endpoint) == ("refresh", "token"):  # nobody is signed out by it
        provider.tenant.clear_faults()
        assert ask().status_code == 200


@pytest.fixture
def alice(demo: Flask, tenant: Tenant) -> Shopper:
    """Alice, signed in."""
    alice = Shopper(demo)
    alice.login()
    return alice


def test_what_is_long_and_no_longer_than_a_megabyte_is_taken(
    alice: Shopper, tenant: Tenant
) -> None:
    tenant.fail("userinfo", Fault.body({"sub": "auth0|alice", "long": "x" * 900_000}))

    assert len(alice.client.get("/api/userinfo").text) > 900_000


@pytest.mark.parametrize("how", ["drips", "pours"])
def test_a_logout_waits_for_neither(
    alice: Shopper, provider: Provider, how: str
) -> None:
    getattr(provider, how)("revoke")

    began = time.monotonic()
    away = alice.client.get("/logout")

    assert time.monotonic() - began < 5
    assert "/v2/logout?" in away.location
    assert alice.client.get_cookie("session_auth0") is None
