"""Single-flight: a refresh token is shown to Auth0 by one request only.

A refresh token that rotates is valid once: shown twice, it ends the session at the
provider (RFC 9700 section 4.14.2). So one request exchanges it, and the result is
kept, encrypted, for the others that still hold it in their cookies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .errors import StoreUnavailable
from .stores.base import EncryptedStore
from .stores.shared import SharedStore, digest
from .verification import ThreadOfOpenSSL

logger = logging.getLogger(__name__)

#: Seconds after which a lock expires: its holder may have been killed.
LOCK_SECONDS = 10.0
#: Seconds that the provider has for its answer; less, so that the lock is not lost.
EXCHANGE_SECONDS = 8.0
#: Seconds that somebody waits for a lock, and between two looks.
_MAX_WAIT, _POLL = 30.0, 0.02
#: Seconds that what replaces a token or claims is kept, at least and at most.
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
    mine.add_done_callback(lambda _: _in_flight.pop(key))  # who comes then asks anew
    while (theirs := _in_flight.setdefault(key, mine)) is not mine:
        result = await asyncio.wrap_future(theirs)
        if result["began"] >= since:
            return {**result, "answer": dict(result["answer"])}, False
    locked = _LockedExchange(shared, encryption, purpose, exchange, since)

    def work() -> None:
        try:
            mine.set_result(locked.result(token))
        except BaseException as failure:  # for those who wait
            mine.set_exception(failure)

    try:
        ThreadOfOpenSSL(target=work, name="auth0-refresh", daemon=True).start()
    except BaseException as error:  # there may be no more threads just now
        mine.set_exception(error)
    result = await asyncio.wrap_future(mine)
    return {**result, "answer": dict(result["answer"])}, "is_new" in result


def newest_refresh(
    shared: SharedStore, encryption: EncryptedStore, token: str, since: float = 0.0
) -> dict[str, Any] | None:
    """Return the last result of what replaced a refresh token, or None.

    Where the token stays the same, it is the last one with claims, if after ``since``.
    """
    newest, seen = None, set[str]()  # should a provider hand out an old one again
    last = token
    while last not in seen and (found := _kept(shared, encryption, last)):
        seen.add(last)
        newest, last = found, found["answer"].get("refresh_token", last)
    is_known = newest and last == token and newest["began"] <= since
    return None if is_known else newest


@dataclass
class _LockedExchange:
    """One exchange, under the lock of its refresh token."""

    _shared: SharedStore
    _encryption: EncryptedStore
    _purpose: str
    _exchange: Exchange
    _since: float

    def result(self, token: str) -> dict[str, Any]:
        give_up, seen = time.monotonic() + _MAX_WAIT, set[str]()
        again: tuple[str, ...] = ()
        while time.monotonic() < give_up:
            if replaced := _kept(self._shared, self._encryption, token):
                if self._serves(replaced):
                    return replaced
                if token not in seen:
                    seen.add(token)
                    token = replaced["answer"].get("refresh_token", token)
                    continue
                # it stays the same, or a provider hands out an old one again
                again = ("after", str(replaced["began"]))
            if release := self._shared.lock(_name(token, *again), LOCK_SECONDS):
                return self._locked(token, release)
            time.sleep(_POLL)
        raise TimeoutError("another request's refresh did not finish in time")

    def _locked(self, token: str, release: Callable[[], object]) -> dict[str, Any]:
        is_rotated = False
        try:
            found = _kept(self._shared, self._encryption, token, self._purpose)
            if found and self._serves(found):
                return found
            about = {"purpose": self._purpose, "began": self._shared.now()}
            result = {**self._exchange(token), **about}
            is_rotated = result["answer"].get("refresh_token") not in {None, token}
            if not is_rotated:
                self._keep(result, 0.0, token, self._purpose)
            if is_rotated or result.get("claims"):
                self._keep(result, _MIN_KEPT, token)
            return {**result, "is_new": True}
        finally:
            if not is_rotated:  # else the result is in place of the lock
                with suppress(StoreUnavailable):  # then it expires by itself
                    release()

    def _serves(self, result: Mapping[str, Any]) -> bool:
        """Tell whether a result is what was asked for, and new enough."""
        is_current = result["fresh_until"] > time.time()
        is_same = result["purpose"] == self._purpose
        return bool(is_current and is_same and result["began"] >= self._since)

    def _keep(self, result: dict[str, Any], at_least: float, *about: str) -> None:
        """Keep a result; where that fails, only this process has it at first."""
        left, name = max(result["fresh_until"] - time.time(), at_least), _name(*about)
        if left <= 0:
            return
        encrypted = self._encryption.encrypt(name, result)
        try:
            self._shared.keep_eventually(name, encrypted, min(left, _MAX_KEPT))
        except StoreUnavailable:
            logger.error(
                "A refreshed token could not be shared with other workers yet."
            )


def _kept(
    shared: SharedStore, encryption: EncryptedStore, *about: str
) -> dict[str, Any] | None:
    name = _name(*about)
    encrypted = shared.kept_result(name)
    return None if encrypted is None else encryption.decrypt(name, encrypted)


def _name(*about: str) -> str:
    """Return what stands for tokens, so that a store holds none in plain text."""
    return digest("\n".join(("refresh", *about)))
