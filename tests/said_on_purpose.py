"""Tests that say a secret each, and pass; `test_login.py` sees that their run fails."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
from flask import Flask

import auth
from app import create_app
from auth0_flask.tenant import Tenant
from servers import free_port, serving
from visitor import Shopper
from watch import watch

SERVE = """
import http.server, sys
print(sys.argv[2], flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), None).serve_forever()
"""


def raise_before_what_is_raised(secret: str) -> None:
    with pytest.raises(RuntimeError):
        raise RuntimeError("nothing to see") from ValueError(secret)


def raise_in_a_view(secret: str) -> None:
    app = create_app()

    @app.get("/shown")
    def shown() -> str:
        raise auth.LoginRefused(f"it is {secret}") from ValueError(secret)

    assert app.test_client().get("/shown").status_code == 403


def let_a_program_say_it(secret: str) -> None:
    script = f"import sys; sys.stderr.write({secret!r})"
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)


def let_a_server_say_it(secret: str) -> None:
    with serving([sys.executable, "-c", SERVE, "{port}", secret], {}, free_port()):
        pass


log = logging.getLogger("some.library").debug
WAYS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("access_token", "credentials", "code_verifier"), log),
    "refresh_token": lambda secret: warnings.warn(f"it is {secret}", stacklevel=1),
    "id_token": raise_before_what_is_raised,
    "cookie": raise_in_a_view,
    "code": lambda secret: print(f"...{secret[3:27]}..."),  # noqa: T201 - as it goes
    "AUTH0_CLIENT_SECRET": let_a_program_say_it,
    "AUTH0_SECRET": let_a_server_say_it,
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", WAYS)
def test_it_is_said(kind: str, shop: Flask, tenant: Tenant) -> None:
    Shopper(shop).login()
    noted = {kind: secret for secret, kind in watch.secrets.items()}
    WAYS[kind](noted[kind])
