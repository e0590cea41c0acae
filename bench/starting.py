"""How long a process takes until the app is made; ``python -m bench starting``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from .rounds import in_turn, show

ROUNDS = 7
_CODE = {
    "Python alone": "",
    "import flask": "import flask",
    "import flask and the SDK": (
        "import flask;"
        "from auth0_server_python.auth_server.server_client import ServerClient"
    ),
    "our app, made": "import app; app.create_app()",
}


def main() -> None:
    """Print a table of whole processes."""
    rows = in_turn({name: _starting(code) for name, code in _CODE.items()}, ROUNDS)
    show(rows, unit="ms", base="import flask and the SDK")


def _starting(code: str) -> Callable[[], float]:
    def milliseconds() -> float:
        began = time.perf_counter()
        command = [sys.executable, "-c", code]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - our own code
        return (time.perf_counter() - began) * 1e3

    return milliseconds


if __name__ == "__main__":
    main()
