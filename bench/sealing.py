"""What sealing and opening a session costs; ``python -m bench sealing``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial

from auth0_server_python.encryption.encrypt import decrypt, encrypt

from stores.jwe import seal, unseal

from .rounds import in_turn, show
from .sizes import CLAIMS, api_token, opaque, state

ROUNDS = 15
TIMES = 300


def main() -> None:
    """Print a table beside the SDK's own pair of functions."""
    secret = secrets.token_hex(32)
    usual, long = state(CLAIMS, opaque(43)), state(CLAIMS, api_token(6_450))
    sealed, of_sdk = seal("s", usual, [secret]), encrypt(usual, secret, "s")
    open_ = partial(unseal, "s", sealed, [secret])
    work: dict[str, Callable[[], object]] = {
        "the SDK's encrypt": lambda: encrypt(usual, secret, "s"),
        "seal": lambda: seal("s", usual, [secret]),
        "the SDK's decrypt": lambda: decrypt(of_sdk, secret, "s"),
        "unseal": open_,
        "unseal, opened lately": partial(open_, remember=True),
        "unseal, a session of 7 KB": partial(
            unseal, "s", seal("s", long, [secret]), [secret]
        ),
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
