"""Try the app without an Auth0 account: ``python -m auth0_flask.tenant``."""

from __future__ import annotations

import argparse
import sys

from auth0_flask.tenant.runner import run_command, serve_app
from auth0_flask.tenant.tenant import Tenant


def main() -> int:
    """Serve the app, or run the command given; return the exit code."""
    command = _parser().parse_args().command
    try:
        if command:
            return run_command(command)
        serve_app(_announce)
    except KeyboardInterrupt:
        return 130 if command else 0
    except ModuleNotFoundError as error:
        if error.name != "app":
            raise
        print(
            "There is no app.py here: start this in the project's folder.",
            file=sys.stderr,
        )
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m auth0_flask.tenant",
        usage="%(prog)s [-h] [COMMAND ARG ...]",
        description="A stand-in for an Auth0 tenant on this machine, to sign in at "
        "without an Auth0 account. Alone, it serves the app of this folder; with a "
        "command, it runs that with AUTH0_DOMAIN and the rest in its environment.",
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND ARG",
        help="a program to run",
    )
    return parser


def _announce(tenant: Tenant, port: int) -> None:
    print(f"Open http://localhost:{port} and sign in as anybody. Ctrl+C ends it.")
    print(
        f"The tenant at https://{tenant.domain} is a stand-in for Auth0 on this "
        "machine.",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
