"""Tests that say a secret each, for `test_logs.py` to see that it is found.

They pass, all of them; it is the run that has to fail.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import subprocess
import sys
import warnings
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

import auth
from app import create_app
from auth0_flask.tenant import Tenant
from servers import free_port, serving
from visitor import Visitor
from watch import watch


async def access_token(alice: Visitor) -> str:
    await alice.login()
    return (await alice.get("/token")).text


def state_of(app: Flask, alice: Visitor) -> dict[str, str]:
    pairs = "; ".join(f"{name}={value}" for name, value in alice.cookies.items())
    with app.test_request_context(headers={"Cookie": pairs}):
        return dict(auth.auth0.read_session() or {})


async def test_logged_at_the_lowest_level(alice: Visitor) -> None:
    logging.getLogger("some.library").debug("it is %s", await access_token(alice))


async def test_raised_before_what_is_raised(app: Flask, alice: Visitor) -> None:
    await alice.login()
    id_token = state_of(app, alice)["id_token"]
    with pytest.raises(RuntimeError):  # noqa: PT012 - as it goes
        try:
            raise ValueError(id_token)
        except ValueError as error:
            raise RuntimeError("nothing to see") from error


async def test_raised_in_a_view(app: Flask, alice: Visitor) -> None:
    await alice.login()
    cookie = alice.cookies["session_auth0"]
    error = auth.LoginRefused("no")
    error.__cause__ = ValueError(cookie)
    with app.test_request_context("/"):
        app.handle_user_exception(error)


@pytest.mark.filterwarnings("default")
async def test_warned(app: Flask, alice: Visitor) -> None:
    await alice.login()
    refresh_token = state_of(app, alice)["refresh_token"]
    warnings.warn(f"it is {refresh_token}", stacklevel=1)


async def test_printed_in_part(alice: Visitor) -> None:
    page = await alice.start()
    back = await alice.choose(page, username="alice")
    (code,) = parse_qs(urlsplit(back.headers["Location"]).query)["code"]
    await alice.follow(back)
    print(f"...{code[3:27]}...")  # noqa: T201 - it is about that


async def test_said_by_a_program(alice: Visitor) -> None:
    await alice.login()
    await asyncio.to_thread(say_a_verifier)


def say_a_verifier() -> None:
    verifier = next(s for s, kind in watch.secrets.items() if kind == "code_verifier")
    script = f"import sys; sys.stderr.write({verifier!r})"
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)


def test_said_by_a_server(tenant: Tenant) -> None:
    secret = auth.auth0.settings.secrets[0]
    script = f"""
import http.server, sys
print({secret!r}, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), None).serve_forever()
"""
    with serving([sys.executable, "-c", script, "{port}"], {}, free_port()):
        pass


def test_shown_on_a_page() -> None:
    app = create_app()

    @app.get("/shown")
    def shown() -> str:
        raise auth.LoginRefused(f"it is {auth.auth0.settings.client_secret}")

    assert app.test_client().get("/shown").status_code == 403


async def test_logged_as_it_is_sent(alice: Visitor) -> None:
    await alice.login()
    ours = auth.auth0.settings
    pair = f"{ours.client_id}:{ours.client_secret}".encode()
    logging.getLogger("some.library").info(base64.b64encode(pair).decode())
