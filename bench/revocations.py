"""What a signed-in request costs with ten and with 100,000 revocations.

``python -m bench.revocations``
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from flask import Flask, jsonify
from flask.testing import FlaskClient

from stores import (
    FlaskSessionStateStore,
    Lifetime,
    SpanningSessionInterface,
    SqliteRevocations,
)

from .sizes import CLAIMS, opaque, state

ROUNDS = 15
REQUESTS = 400


def client_with(entries: int, path: Path) -> FlaskClient:
    """Return a signed-in client of an app with so many revocations."""
    app = Flask(__name__)
    app.secret_key = "k" * 32
    app.session_interface = SpanningSessionInterface()
    lifetime = Lifetime(
        domain="tenant.eu.auth0.com", idle_seconds=86_400, max_seconds=604_800
    )
    lifetime.revocations = revocations = SqliteRevocations(path)
    now = time.time()
    keys = [f"id {number}" for number in range(entries)]
    revocations.revoke(keys, at=now, until=now + 604_800)
    store = FlaskSessionStateStore(secrets=("s" * 32,), scope="", lifetime=lifetime)

    @app.get("/login")
    def login() -> str:
        store.keep("_a0_session", state(CLAIMS, opaque(43)))
        return "signed in"

    @app.get("/me")
    def me() -> Any:
        return jsonify((store.read() or {})["user"])

    client = app.test_client()
    client.get("/login")
    return client


def microseconds(client: FlaskClient) -> float:
    """Time requests; return what one took."""
    began = time.perf_counter()
    for _ in range(REQUESTS):
        client.get("/me")
    return (time.perf_counter() - began) / REQUESTS * 1e6


def main() -> None:
    """Print both, measured in turn, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        few = client_with(10, Path(folder, "few.sqlite3"))
        many = client_with(100_000, Path(folder, "many.sqlite3"))
        pairs = [(microseconds(few), microseconds(many)) for _ in range(ROUNDS)]
    ratios = sorted(b / a for a, b in pairs)
    print("| Revocations | Microseconds a request (median) |")
    print("|---|---|")
    print(f"| 10 | {statistics.median(a for a, _ in pairs):.0f} |")
    print(f"| 100,000 | {statistics.median(b for _, b in pairs):.0f} |")
    print(
        f"\nRatio, pair by pair: {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    main()
