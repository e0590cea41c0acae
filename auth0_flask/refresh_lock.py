"""Single-flight: a refresh token is shown to Auth0 by one request only.

A refresh token that rotates is valid once: shown twice, it ends the session at the
provider (RFC 9700 section 4.14.2). So one request exchanges it, and the result is
kept, encrypted, for the others that still hold it in their cookies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .errors import StoreUnavailable
from .stores.base import EncryptedStore
from .stores.shared import SharedStore, digest

logger = logging.getLogger(__name__)

#: Seconds after which a lock expires: its holder may have been killed.
LOCK_SECONDS = 10.0
#: Seconds that the provider has for its answer; less, so that the lock is not lost.
EXCHANGE_SECONDS = 8.0
#: Seconds that somebody waits for a lock, and between two looks.
_MAX_WAIT, _POLL = 30.0, 0.02
#: Seconds that the result for a replaced refresh token is kept, at least and at most.
_MIN_KEPT, _MAX_KEPT = 60.0, 600.0

Exchange = Callable[[str], dict[str, Any]]

# by process as well: a future of the parent never comes to an end in a forked child
_in_flight: dict[tuple[int, str, str], Future[dict[str, Any]]] = {}


async def refresh_once(
    shared: SharedStore,
    encryption: EncryptedStore,
    token: str,
    purpose: str,
    exchange: Exchange,
    since: float = 0.0,
) -> tuple[dict[str, Any], bool]:
    """Exchange a refresh token, or wait for the request that is doing so.

    ``exchange`` asks the provider, in a thread without an event loop, which goes on
    where the caller is cancelled: the answer is not lost. Returned is ``answer`` with
    what comes with it, and whether this call asked for it. What was asked for before
    ``since``, by the clock of the store, is not taken.
    """
    key = (os.getpid(), token, purpose)
    mine: Future[dict[str, Any]] = Future()
    mine.set_running_or_notify_cancel()  # none of those who wait may cancel it
    while (theirs := _in_flight.setdefault(key, mine)) is not mine:
        result = await asyncio.wrap_future(theirs)
        if result["began"] >= since:
            return {**result, "answer": dict(result["answer"])}, False
    locked = _LockedExchange(shared, encryption, purpose, exchange, since)

    def work() -> None:
        result = failure = None
        try:
            result = locked.result(token)
        except BaseException as error:  # for those who wait
            failure = error
        del _in_flight[key]  # first: who comes now asks anew
        if result is None:
            mine.set_exception(failure)
        else:
            mine.set_result(result)

    threading.Thread(target=work, name="auth0-refresh", daemon=True).start()
    result = await asyncio.wrap_future(mine)
    return {**result, "answer": dict(result["answer"])}, "is_new" in result


def newest_refresh_token(
    shared: SharedStore, encryption: EncryptedStore, token: str
) -> str:
    """Return the refresh token that replaced one, or itself."""
    seen: set[str] = set()  # should a provider hand out an old one again
    while token not in seen and (kept := shared.result(_name(token))):
        seen.add(token)
        replaced = encryption.decrypt(_name("sealed", token), kept)
        token = replaced["answer"]["refresh_token"]
    return token


@dataclass
class _LockedExchange:
    """One exchange, under the lock of its refresh token."""

    _shared: SharedStore
    _encryption: EncryptedStore
    _purpose: str
    _exchange: Exchange
    _since: float

    def result(self, token: str) -> dict[str, Any]:
        give_up, seen, is_known = time.monotonic() + _MAX_WAIT, {token}, False
        while time.monotonic() < give_up:
            if replaced := self._kept(token):
                if self._serves(replaced):
                    return replaced
                token = replaced["answer"]["refresh_token"]
                is_known = token in seen  # a provider may hand out an old one again
                if not is_known:
                    seen.add(token)
                    continue
            found = self._kept(token, self._purpose)
            if found and self._serves(found):
                return found
            if release := self._shared.lock(_name(token), LOCK_SECONDS):
                try:
                    return self._locked(token, is_known)
                finally:
                    with suppress(StoreUnavailable):  # then it expires by itself
                        release()
            time.sleep(_POLL)
        raise TimeoutError("another request's refresh does not come to an end")

    def _locked(self, token: str, is_known: bool) -> dict[str, Any]:
        # another process may have been quicker, between our look and our lock
        if not is_known and self._kept(token):
            return self.result(token)
        found = self._kept(token, self._purpose)
        if found and self._serves(found):
            return found
        about = {"purpose": self._purpose, "began": self._shared.now()}
        result = {**self._exchange(token), **about}
        if result["answer"].get("refresh_token") in {None, token}:
            self._keep(result, 0.0, token, self._purpose)
        else:
            self._keep(result, _MIN_KEPT, token)
        return {**result, "is_new": True}

    def _kept(self, *about: str) -> dict[str, Any] | None:
        encrypted = self._shared.result(_name(*about))
        if encrypted is None:
            return None
        return self._encryption.decrypt(_name("sealed", *about), encrypted)

    def _serves(self, result: Mapping[str, Any]) -> bool:
        """Tell whether a result is what was asked for, and new enough."""
        is_current = result["fresh_until"] > time.time()
        is_same = result["purpose"] == self._purpose
        return bool(is_current and is_same and result["began"] >= self._since)

    def _keep(self, result: dict[str, Any], at_least: float, *about: str) -> None:
        """Keep a result; where that fails, only this request has it."""
        left = max(result["fresh_until"] - time.time(), at_least)
        if left <= 0:
            return
        encrypted = self._encryption.encrypt(_name("sealed", *about), result)
        try:
            self._shared.keep_result(_name(*about), encrypted, min(left, _MAX_KEPT))
        except StoreUnavailable:
            logger.error("A refreshed token could not be shared with other workers.")


def _name(*about: str) -> str:
    """Return what stands for tokens, so that a store holds none in plain text."""
    return digest("\n".join(about))
