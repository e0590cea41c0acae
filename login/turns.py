"""One at a time: a refresh token is shown to the provider by one request only."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Protocol

from werkzeug.exceptions import ServiceUnavailable

logger = logging.getLogger(__name__)

#: Seconds after which a turn ends by itself: whoever has it may have been killed.
TURN = 10.0
#: Seconds that the provider has for its answer; less, so that a turn is not lost.
PATIENCE = 8.0
#: Seconds that somebody waits for their turn.
_MOST_WAIT = 30.0
_POLL = 0.02
#: Seconds that what came of a replaced refresh token is kept, at least and at most.
_LEAST, _MOST = 60.0, 600.0

Exchange = Callable[[str], dict[str, Any]]


class Store(Protocol):
    """Where turns and results are, for all who may hold the same refresh token."""

    def claim(self, key: str, owner: str, seconds: float) -> Any:
        """Take a turn; see `stores.refreshes`."""

    def find(self, key: str) -> str | None:
        """Return what was kept."""

    def keep(self, key: str, sealed: str, seconds: float) -> None:
        """Keep a result."""

    def release(self, key: str, owner: str) -> None:
        """Give a turn back."""


class Seal(Protocol):
    """How a store's contents are sealed."""

    def encrypt(self, identifier: str, data: dict[str, Any], /) -> str:
        """Seal for this identifier."""

    def decrypt(self, identifier: str, sealed: object, /) -> dict[str, Any]:
        """Open what was sealed for this identifier."""


class Turns:
    """Exchanges refresh tokens, each by one request at a time.

    A refresh token that rotates is good once: shown twice, it ends the session at
    the provider (RFC 9700 section 4.14.2). So one request exchanges it, and what
    came of it is kept, sealed, for the others that still hold it in their cookies.

    Args:
        store: Where turns and results are.
        seal: What seals a result; the identifier is a digest of the refresh token.
    """

    def __init__(self, store: Store, seal: Seal) -> None:
        self._store = store
        self._seal = seal
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, str], Future[dict[str, Any]]] = {}

    async def take(
        self, token: str, purpose: str, exchange: Exchange
    ) -> tuple[dict[str, Any], bool]:
        """Exchange a refresh token, or wait for whoever is doing that.

        Args:
            token: The refresh token, replaced or not.
            purpose: What is asked for with it.
            exchange: Asks the provider; called in a thread without an event loop,
                which goes on where the caller is cancelled: the answer is not lost.

        Returns:
            ``answer`` with what comes with it, and whether this call asked for it.
        """
        future, is_first = self._begin(token, purpose, exchange)
        result = await asyncio.wrap_future(future)
        is_new = is_first and "is_new" in result
        return {**result, "answer": dict(result["answer"])}, is_new

    def newest(self, token: str) -> str:
        """Return the refresh token that came of one, or itself."""
        seen: set[str] = set()  # should a provider give an old one out again
        while token not in seen and (kept := self._store.find(_name(token))):
            seen.add(token)
            replaced = self._seal.decrypt(_name("sealed", token), kept)
            token = replaced["answer"]["refresh_token"]
        return token

    def _begin(
        self, token: str, purpose: str, exchange: Exchange
    ) -> tuple[Future[dict[str, Any]], bool]:
        with self._lock:
            if future := self._under_way.get((token, purpose)):
                return future, False
            future = Future()
            future.set_running_or_notify_cancel()  # nobody who waits may cancel it
            work = partial(self._work, future, token, purpose, exchange)
            threading.Thread(target=work, name="auth0-refresh", daemon=True).start()
            self._under_way[token, purpose] = future
            return future, True

    def _work(
        self,
        future: Future[dict[str, Any]],
        token: str,
        purpose: str,
        exchange: Exchange,
    ) -> None:
        error = result = None
        try:
            result = self._result(token, purpose, exchange)
        except BaseException as raised:  # for whoever waits to handle
            error = raised
        with self._lock:
            del self._under_way[token, purpose]
        if result is None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _result(self, token: str, purpose: str, exchange: Exchange) -> dict[str, Any]:
        owner, give_up = token_urlsafe(12), time.monotonic() + _MOST_WAIT
        while time.monotonic() < give_up:
            if found := self._find(token, purpose):
                return found
            turn = self._store.claim(_name(token), owner, TURN)
            if turn.is_ours:
                return self._in_turn(token, purpose, owner, exchange)
            if turn.kept is None:
                time.sleep(_POLL)
                continue
            replaced = self._seal.decrypt(_name("sealed", token), turn.kept)
            if _is_good(replaced) and replaced["purpose"] == purpose:
                return replaced
            token = replaced["answer"]["refresh_token"]
        raise TimeoutError("somebody else's refresh does not come to an end")

    def _in_turn(
        self, token: str, purpose: str, owner: str, exchange: Exchange
    ) -> dict[str, Any]:
        try:
            found = self._find(token, purpose)
            result = found or exchange(token)
        except BaseException:
            self._release(token, owner)
            raise
        result["purpose"] = purpose
        if result["answer"].get("refresh_token") in {None, token}:
            self._keep((token, purpose), result)
            self._release(token, owner)
        else:
            self._keep((token,), result)
        return found or {**result, "is_new": True}

    def _find(self, token: str, purpose: str) -> dict[str, Any] | None:
        """Return what was kept of a refresh token that stays as it is."""
        sealed = self._store.find(_name(token, purpose))
        if sealed is None:
            return None
        result = self._seal.decrypt(_name("sealed", token, purpose), sealed)
        return result if _is_good(result) else None

    def _keep(self, about: Sequence[str], result: dict[str, Any]) -> None:
        """Keep a result; where that fails, only this request has it."""
        left = result["fresh_until"] - time.time()
        if len(about) == 1:  # who holds a replaced token needs the one after it
            left = max(left, _LEAST)
        if left <= 0:
            return
        sealed = self._seal.encrypt(_name("sealed", *about), result)
        try:
            self._store.keep(_name(*about), sealed, min(left, _MOST))
        except ServiceUnavailable as error:
            kind = type(error.__cause__).__name__
            logger.error("A refreshed token could not be shared: %s", kind)

    def _release(self, token: str, owner: str) -> None:
        with suppress(ServiceUnavailable):  # then it ends by itself
            self._store.release(_name(token), owner)


def _is_good(result: Mapping[str, Any]) -> bool:
    return bool(result["fresh_until"] > time.time())


def _name(*about: str) -> str:
    """Return what stands for tokens, so that a store holds none."""
    return sha256("\n".join(about).encode()).hexdigest()
