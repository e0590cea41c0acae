"""What encrypting and decrypting a session costs; ``python -m bench encryption``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial

from auth0_server_python.encryption import decrypt as sdk_decrypt
from auth0_server_python.encryption import encrypt as sdk_encrypt

from auth0_flask.stores.encryption import decrypt, encrypt

from .rounds import in_turn, show
from .sessions import CLAIMS, api_token, opaque, state

ROUNDS = 15
TIMES = 300


def main() -> None:
    """Print a table beside the SDK's own pair of functions."""
    secret = secrets.token_hex(32)
    usual, long = state(CLAIMS, opaque(43)), state(CLAIMS, api_token(6_450))
    of_sdk = sdk_encrypt(usual, secret, "s")
    of_usual, of_long = (encrypt("s", state, [secret]) for state in (usual, long))
    work: dict[str, Callable[[], object]] = {
        "the SDK's encrypt": partial(sdk_encrypt, usual, secret, "s"),
        "encrypt": partial(encrypt, "s", usual, [secret]),
        "the SDK's decrypt": partial(sdk_decrypt, of_sdk, secret, "s"),
        "decrypt": partial(decrypt, "s", of_usual, [secret]),
        "decrypt, a session of 7 KB": partial(decrypt, "s", of_long, [secret]),
    }
    rows = in_turn({name: _timing(do) for name, do in work.items()}, ROUNDS)
    show(rows, unit="µs", base="the SDK's decrypt", form=".1f")


def _timing(do: Callable[[], object]) -> Callable[[], float]:
    def microseconds() -> float:
        began = time.perf_counter()
        for _ in range(TIMES):
            do()
        return (time.perf_counter() - began) / TIMES * 1e6

    return microseconds


if __name__ == "__main__":
    main()
