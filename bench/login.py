"""What a login takes, against the local tenant; ``python -m bench login``."""

from __future__ import annotations

import os
import re
import ssl
import statistics
import tempfile
import time
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from flask import Flask

from auth0_flask.tenant import Tenant

from . import subjects

LOGINS = 50
_STATE = re.compile(r'name="state"[^>]*?value="([^"]*)"')


def main() -> None:
    """Print requests and connections to Auth0, and the app's share of the time."""
    with Tenant() as tenant, tempfile.TemporaryDirectory() as folder:
        os.environ.update(tenant.environ(f"{subjects.ADDRESS}/callback"))
        os.environ["AUTH0_REVOCATIONS_PATH"] = str(Path(folder, "r.sqlite3"))
        app = subjects.ours()
        _login(app, tenant)
        before, connections = len(tenant.requests), tenant.open_connections
        times = [_login(app, tenant) for _ in range(LOGINS)]
        asked = [seen.path for seen in tenant.requests[before:]]
        of_the_app = [path for path in asked if path not in {"/authorize", "/u/login"}]
        more = tenant.open_connections - connections
    print(f"A login, after the first one ({LOGINS} in a row):\n")
    print("| | |\n|---|--:|")
    print(f"| requests of the app to Auth0 | {len(of_the_app) / LOGINS:.2f} |")
    print(f"| connections it opened more | {more} |")
    print(f"| /login and /callback together, ms | {statistics.median(times):.1f} |\n")


def _login(app: Flask, tenant: Tenant) -> float:
    """Log in; return the milliseconds that the app took, Auth0's answers included."""
    client = app.test_client()
    began = time.perf_counter()
    away = client.get("/login", base_url=subjects.ADDRESS).headers["Location"]
    took = time.perf_counter() - began
    back = urlsplit(sign_in(away, tenant))
    began = time.perf_counter()
    answer = client.get(f"{back.path}?{back.query}", base_url=subjects.ADDRESS)
    took += time.perf_counter() - began
    assert answer.status_code == 302, answer.text  # noqa: S101 - a failed login is not worth timing
    return took * 1e3


def sign_in(address: str, tenant: Tenant) -> str:
    """Do what a browser does at the tenant; return where it is sent back to."""
    context = ssl.create_default_context(cafile=tenant.ca_file)
    with httpx.Client(verify=context, follow_redirects=True, trust_env=False) as http:
        page = http.get(address)
        found = _STATE.search(page.text)
        assert found, page.text  # noqa: S101 - it is a page to sign in on
        fields = {"state": unescape(found[1]), "username": "alice", "action": "login"}
        answer = http.post(
            page.url.join("/u/login"), data=fields, follow_redirects=False
        )
        return answer.headers["Location"]


if __name__ == "__main__":
    main()
