"""A provider that answers slowly, endlessly or with far too much is an outage."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache
from itertools import repeat
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, ClassVar

import httpx
import pytest
from flask import Flask
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

from auth import auth0
from auth0_flask.tenant import Fault, Tenant
from shop import copy_of_auth, make_shop
from test_revocations import in_children
from visitor import Shopper

#: What a request may take that waits for a provider as long as it may.
SECONDS = 8.0 + 2.0

Ask = Callable[[], TestResponse]
Body = Callable[[], Iterable[bytes]]


def a_byte_a_second() -> Iterator[bytes]:
    for byte in repeat(b"x", 30):
        time.sleep(1)
        yield byte


def megabytes() -> Iterator[bytes]:
    yield b'{"access_token": "'
    yield from repeat(b"x" * 100_000, 2000)
    yield b'"}'


@cache
def packed() -> list[bytes]:
    """Pack 200 MB into 200 KB."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    return [b"".join([*map(packer.compress, megabytes()), packer.flush()])]


def respond(tenant: Tenant, endpoint: str, body: Body) -> None:
    """Have one of the tenant's endpoints answer like this."""
    headers = {"Content-Encoding": "gzip"} if body is packed else {}

    def act(*_: object) -> Response:
        return Response(body(), 200, headers, "application/json")

    tenant.fail(endpoint, Fault(act), 4)


def prepare(does: str, app: Flask, tenant: Tenant) -> Ask:
    """Return what asks for something as somebody who is ready to do that."""
    alice = Shopper(app)
    alice.client.environ_base["HTTP_ACCEPT"] = "application/json"
    if does in {"refresh", "userinfo", "logout"}:
        alice.login()
    if does == "backchannel":
        form = {"logout_token": tenant.logout_token(sub="auth0|alice")}
        return lambda: alice.client.post("/backchannel-logout", data=form)
    token = "/token?audience=https://api.example/"
    paths = {"refresh": token, "userinfo": "/api/userinfo"}
    path = alice.sign_in() if does == "callback" else paths.get(does, f"/{does}")
    return lambda: alice.client.get(path)


def timed(ask: Ask) -> tuple[TestResponse, float]:
    began = time.monotonic()
    return ask(), time.monotonic() - began


def see_outage(answer: TestResponse) -> None:
    assert answer.status_code == 502, answer.text
    assert answer.headers["Retry-After"]
    assert answer.get_json()["code"] in {"provider_unreachable", "invalid_response"}


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_requests_of_a_process_share_a_connection_while_it_is_open(
    app: Flask, tenant: Tenant
) -> None:
    """Each view has an event loop of its own."""
    ask = prepare("userinfo", app, tenant)

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


def test_neither_a_dead_address_nor_a_silent_dns_is_waited_for_long(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, over = socket.getaddrinfo, threading.Event()

    def found(host: Any, *args: Any, **options: Any) -> list[Any]:
        over.wait(30 * ("slow" in str(host)))
        addresses = "127.0.0.2", "127.0.0.1"  # the first as where IPv6 leads nowhere
        return [a for n in addresses for a in look_up(n, *args, **options)]

    port = int(tenant.domain.partition(":")[2])
    with socket.create_server(("127.0.0.2", port), backlog=0) as full, ExitStack() as s:
        for _ in range(4):
            s.enter_context(waiting := socket.socket()).setblocking(False)
            waiting.connect_ex(full.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", found)
        tenant.close_connections()
        answer, seconds = timed(prepare("login", make_shop(copy_of_auth({})), tenant))
    assert answer.status_code == 302
    assert 2 < seconds < 4.5

    slow = copy_of_auth({"AUTH0_DOMAIN": "slow.example"}).auth0
    began = time.monotonic()
    with pytest.raises(httpx.ConnectTimeout):
        asyncio.run(slow.verifier.metadata())
    over.set()
    assert time.monotonic() - began < SECONDS


class Proxy(StreamRequestHandler):
    """Lets through what asks for it (RFC 9110 section 9.3.6), while it may."""

    says: ClassVar[bytes]
    asked_for: ClassVar[list[str]]

    def handle(self) -> None:
        method, host, _ = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass  # its headers
        assert method == "CONNECT"
        self.asked_for.append(host)
        self.wfile.write(b"HTTP/1.1 %s\r\n\r\n" % self.says)
        if self.says == b"200 OK":
            name, _, port = host.partition(":")
            with socket.create_connection((name, int(port))) as there:
                threading.Thread(target=copy, args=(there, self.request)).start()
                copy(self.request, there)


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_whole_login_goes_through_the_proxy_of_the_environment_and_no_way_around_it(
    app: Flask, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    Proxy.says, Proxy.asked_for = b"200 OK", []
    with ThreadingTCPServer(("127.0.0.1", 0), Proxy) as proxy, ExitStack() as ends:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever).start()
        ends.callback(proxy.shutdown)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_address[1]}")
        auth0.verifier.forget()
        refresh, callback = (prepare(d, app, tenant) for d in ("refresh", "callback"))
        assert refresh().status_code == 200
        asked = len(Proxy.asked_for)

        tenant.close_connections()
        Proxy.says = b"503 Closed today"
        see_outage(callback())

    assert {*Proxy.asked_for} == {tenant.domain}
    assert 0 < asked < len(Proxy.asked_for)


def test_one_byte_a_second_is_an_outage(app: Flask, tenant: Tenant) -> None:
    """At every endpoint; all at once, since each is waited for as long as it may be."""
    new, without_keys = (make_shop(copy_of_auth({})) for _ in range(2))
    without_keys.test_client().get("/login")
    asks = [prepare("login", new, tenant), prepare("backchannel", without_keys, tenant)]
    asks += [prepare(does, app, tenant) for does in ("callback", "refresh", "userinfo")]
    for endpoint in ("discovery", "jwks", "token", "userinfo"):
        respond(tenant, endpoint, a_byte_a_second)

    with ThreadPoolExecutor(len(asks)) as pool:
        asked = [*pool.map(timed, asks)]

    for answer, seconds in asked:
        see_outage(answer)
        assert 5 < seconds < SECONDS


@pytest.mark.parametrize("body", [megabytes, packed])
@pytest.mark.parametrize(
    ("does", "endpoint"),
    [
        *(("login", "discovery"), ("callback", "jwks"), ("callback", "token")),
        *(("refresh", "token"), ("userinfo", "userinfo"), ("backchannel", "jwks")),
    ],
)
def test_200_megabytes_are_an_outage_and_take_no_memory(
    app: Flask, tenant: Tenant, does: str, endpoint: str, body: Body
) -> None:
    ask = prepare(does, app, tenant)
    if endpoint in {"discovery", "jwks"}:
        auth0.verifier.forget()
    body()
    respond(tenant, endpoint, body)

    tracemalloc.start()
    (answer, seconds), (_, peak) = timed(ask), tracemalloc.get_traced_memory()
    tracemalloc.stop()

    see_outage(answer)
    assert seconds < SECONDS
    assert peak < 12_000_000
    if does == "refresh":  # nobody is signed out by it
        tenant.clear_faults()
        assert ask().status_code == 200


def test_what_is_long_and_no_longer_than_a_megabyte_is_taken(
    app: Flask, tenant: Tenant
) -> None:
    ask = prepare("userinfo", app, tenant)
    tenant.fail("userinfo", Fault.body({"sub": "auth0|alice", "long": "x" * 900_000}))

    assert len(ask().text) > 900_000


@pytest.mark.parametrize("body", [a_byte_a_second, megabytes])
def test_a_logout_waits_for_neither(app: Flask, tenant: Tenant, body: Body) -> None:
    ask = prepare("logout", app, tenant)
    respond(tenant, "revoke", body)

    answer, seconds = timed(ask)

    assert seconds < 5
    assert "/v2/logout?" in answer.location
    assert "session_auth0=;" in str(answer.headers)
