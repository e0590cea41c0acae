"""The app as it ships, and requests with nothing put right on their way to it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import pytest
from flask import Flask
from werkzeug.test import create_environ, run_wsgi_app

import auth
from app import create_app
from auth0_flask.stores.redis import connect
from redis_server import RedisServer

KEPT = ["cookies", "redis"]


@contextmanager
def shipped(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """Make the app as it ships, with its sessions in what is asked for of `KEPT`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            in_redis = partial(auth.init_app, redis=connect(server.url))
            patch.setattr(auth, "init_app", in_redis)
        yield create_app()


class Sent(NamedTuple):
    """A request, byte by byte as it may come; its headers as an environ names them."""

    path: bytes = b"/"
    method: str = "GET"
    query: bytes = b""
    headers: tuple[tuple[str, bytes], ...] = ()
    body: bytes = b""


class Answer(NamedTuple):
    """What an app answers."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def code(self) -> int:
        return int(self.status[:3])

    @property
    def text(self) -> str:
        return self.body.decode()

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for n, value in self.headers if n.lower() == name]


def send(app: Flask, sent: Sent, host: str) -> Answer:
    """Have an app answer (PEP 3333)."""
    environ = {
        **create_environ(base_url=f"http://{host}"),
        "REQUEST_METHOD": sent.method,
        "PATH_INFO": sent.path.decode("latin-1"),
        "QUERY_STRING": sent.query.decode("latin-1"),
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(sent.body)),
        "wsgi.input": io.BytesIO(sent.body),
        "wsgi.errors": io.StringIO(),
        **{name: value.decode("latin-1") for name, value in sent.headers},
    }
    body, status, headers = run_wsgi_app(app.wsgi_app, environ, True)
    return Answer(status, list(headers), b"".join(body))
