"""When a session is over, and what processes share to know that."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from queue import SimpleQueue
from typing import Any

from auth0_server_python.utils import State
from flask import current_app

from auth0_flask.errors import StoreUnavailable

#: What names a browser or a system; the first that fits, since many claim to be others.
_BROWSERS = (
    *(("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox", "Firefox"), ("FxiOS", "Firefox")),
    *(("CriOS", "Chrome"), ("Chrome", "Chrome"), ("Safari", "Safari")),
    *(("curl", "curl"), ("python", "Python")),
)
_SYSTEMS = (
    *(("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iPhone")),
    *(("iPad", "iPad"), ("Mac OS", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
)
#: Seconds between two tries to note what could not be noted.
_RETRY_SECONDS = 2.0


class SessionRejected(Exception):
    """A session is over; the text says why, and may be logged."""


@dataclass(frozen=True)
class Device:
    """A session of a user, as their list of devices shows it; it holds no token.

    Attributes:
        id: The session's id, which signs nobody in.
        sid: The session at Auth0.
        browser: Browser and system in words.
        created_at: When it began, in seconds since 1970; likewise the next two.
        used_at: When it was last used, to within a twentieth of the idle time.
        until: When it ends at the latest.
    """

    id: str
    sid: str
    browser: str
    created_at: float
    used_at: float
    until: float


def browser_in_words(user_agent: str) -> str:
    """Return browser and system of a ``User-Agent``, such as "Firefox, Linux"."""
    words = [
        next((name for mark, name in names if mark in user_agent), "")
        for names in (_BROWSERS, _SYSTEMS)
    ]
    return ", ".join(filter(None, words)) or "An unknown browser"


def shared_store() -> SharedStore:
    """Return the store of the current app, which `init_app` has chosen."""
    store: SharedStore = current_app.extensions["auth0"].shared_store
    return store


def digest(key: str) -> str:
    """Hash a key, so that a store holds no names of users and no tokens."""
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class SharedStore:
    """Remembers which sessions were ended early, and the results of refreshes.

    This one is for a single process: it knows its own refreshes and no revocation,
    so sessions last until they expire. The subclasses share both; each of their
    methods may raise `StoreUnavailable`.

    Keys are opaque: a session's id, a user, everybody. A session is over if it was
    created at or before the time noted for one of its keys. Times are in seconds
    since 1970.
    """

    #: Whether revocations are remembered.
    remembers = False
    #: What to call it in the check of a setup.
    name = "none: workers share neither logouts nor refreshed tokens"

    def __init__(self) -> None:
        self._unwritten: dict[str, float] = {}
        self._pending: SimpleQueue[tuple[Callable[[], object], float]] = SimpleQueue()
        self._retrying_in = 0
        self._results: dict[str, tuple[str | None, float]] = {}  # None: a lock

    def revoke(
        self, keys: Sequence[str], *, at: float, until: float, jti: str | None = None
    ) -> bool:
        """End the sessions of all these keys, or of none if it raises.

        Those created at or before ``at``; it may be forgotten ``until`` then. Returns
        False, and changes nothing, if the token ``jti`` asked for it before.
        """
        return True

    def revoke_eventually(self, keys: Sequence[str], *, until: float) -> None:
        """End the sessions of keys that are never used again, now or when it works.

        If it does not work now, it raises, and is tried on while this process lives.
        """
        try:
            self.revoke(keys, at=until, until=until)
        except StoreUnavailable:
            self._unwritten |= dict.fromkeys(keys, until)
            self._try_on(lambda: self._revoke_unwritten(keys, until), until)
            raise

    def _revoke_unwritten(self, keys: Sequence[str], until: float) -> None:
        self.revoke(keys, at=until, until=until)
        for key in keys:
            self._unwritten.pop(key, None)

    def _try_on(self, work: Callable[[], object], until: float) -> None:
        self._pending.put((work, until))
        if self._retrying_in != os.getpid():  # a fork leaves threads behind
            self._retrying_in = os.getpid()
            name = "auth0-retries"
            threading.Thread(target=self._retry, name=name, daemon=True).start()

    def _retry(self) -> None:
        while True:
            work, until = self._pending.get()
            if time.time() < until:
                try:
                    work()
                except StoreUnavailable:
                    self._pending.put((work, until))
                    time.sleep(_RETRY_SECONDS)

    def ended_at(self, keys: Sequence[str]) -> float:
        """Return what `revoked_at` does; what waits to be written counts here, too."""
        if self._unwritten:
            until = max((self._unwritten.get(key, 0.0) for key in keys), default=0.0)
            if until > time.time():
                return until
        return self.revoked_at(keys)

    def revoked_at(self, keys: Sequence[str]) -> float:
        """Return the latest time noted for any of the keys, or 0.0.

        Never less than when a store began to remember, if it can know that.
        """
        return 0.0

    def now(self) -> float:
        """Return the time by the one clock of all who share it."""
        return time.time()

    def check(self) -> None:
        """Make sure that the store is there and can be written to."""

    def problems(self) -> Sequence[str]:
        """Try all that the store has to do, and say what is wrong with it."""
        self.check()
        return ()

    def register(self, owner: str, device: Device) -> None:
        """Add a session to its user's list of devices, or renew it there."""

    def unregister(self, owner: str, session_ids: Sequence[str]) -> None:
        """Take a session off its user's list of devices."""

    def devices(self, owner: str) -> list[Device]:
        """Return a user's sessions within their time, the last used one first."""
        return []

    def lock(self, key: str, seconds: float) -> Callable[[], object] | None:
        """Lock a key that others have not locked, and that has no result.

        Returns what releases it, or None. It expires after some seconds, should its
        holder be killed.
        """
        mine = (None, time.time() + seconds)
        if (held := self._results.get(key)) and held[1] <= time.time():
            self._results.pop(key, None)
        if self._results.setdefault(key, mine) is not mine:
            return None

        def release() -> None:
            if self._results.get(key) is mine:  # it may have expired meanwhile
                self._results.pop(key, None)

        return release

    def result(self, key: str) -> str | None:
        """Return the encrypted result that was kept under a key, or None."""
        result, until = self._results.get(key, (None, 0.0))
        return result if until > time.time() else None

    def keep_result(self, key: str, encrypted: str, seconds: float) -> None:
        """Keep an encrypted result for some seconds, in place of a key's lock."""
        now = time.time()
        for name, (_, until) in list(self._results.items()):
            if until <= now:
                self._results.pop(name, None)
        self._results[key] = (encrypted, now + seconds)

    def keep_eventually(self, key: str, encrypted: str, seconds: float) -> None:
        """Keep a result, now or when it works; until then this process has it.

        If it does not work now, it raises, and is tried on while this process lives.
        """
        try:
            self.keep_result(key, encrypted, seconds)
        except StoreUnavailable:
            SharedStore.keep_result(self, key, encrypted, seconds)
            until = time.time() + seconds
            self._try_on(lambda: self._keep_unwritten(key, encrypted, until), until)
            raise

    def _keep_unwritten(self, key: str, encrypted: str, until: float) -> None:
        if not self.result(key):  # else there is a newer one
            self.keep_result(key, encrypted, until - time.time())
        self._results.pop(key, None)

    def kept_result(self, key: str) -> str | None:
        """Return what `result` does; what waits to be written counts here, too."""
        return SharedStore.result(self, key) or self.result(key)


class Lifetime:
    """The rules for all sessions of a client; stricter ones hold for older sessions.

    Args:
        domain: The Auth0 domain; a session of another one is over.
        idle_seconds: Seconds without a request after which a session is over.
        max_seconds: Seconds after login at which a session is over in any case.
    """

    def __init__(self, *, domain: str, idle_seconds: int, max_seconds: int) -> None:
        self._domain, self._all = domain, f"{domain} all"
        self._sub, self._sid = f"{domain} sub", f"{domain} sid"
        self.idle_seconds = idle_seconds
        self.max_seconds = max_seconds

    def check(self, state: Mapping[str, Any], transaction: str | None = None) -> None:
        """Raise `SessionRejected` if a session, or its transaction, is over."""
        now, own = time.time(), state["session"]
        if state["domain"] != self._domain:
            raise SessionRejected("of another Auth0 domain")
        if now - own["created_at"] >= self._max_seconds(own):
            raise SessionRejected("past its absolute lifetime")
        if now - own["used_at"] >= self.idle_seconds:
            raise SessionRejected("idle for too long")
        internal = state["internal"]
        if State.is_session_ceiling_reached(internal.get("session_expires_at")):
            raise SessionRejected("past the end that the identity provider set")
        keys = self.keys(state) + ([transaction] if transaction else [])
        ended_at = shared_store().ended_at(keys)
        if own.get("begun_at", own["created_at"]) <= ended_at:
            raise SessionRejected("ended by a logout or revocation")

    def keys(self, state: Mapping[str, Any]) -> list[str]:
        """Return the keys by which a session may be ended."""
        sub, sid = (state.get("user") or {}).get("sub"), state["internal"].get("sid")
        own = f"id {state['session']['id']}"
        return [own, f"{self._sub} {sub}", f"{self._sid} {sid}", self._all]

    def expires_at(self, state: Mapping[str, Any]) -> float:
        """Return when a session ends in any case, in seconds since 1970."""
        own = state["session"]
        ceiling = state["internal"].get("session_expires_at") or float("inf")
        ceiling -= State.SESSION_EXPIRY_LEEWAY_SECONDS
        return float(min(own["created_at"] + self._max_seconds(own), ceiling))

    def end(self, state: Mapping[str, Any]) -> None:
        """End one session, by our own id, wherever a copy of it may be.

        Where it cannot be noted yet, it raises `StoreUnavailable`, and is tried on.
        """
        own, (key, owner, *_) = state["session"], self.keys(state)
        # should the setting be shorter today, it may be longer again tomorrow
        until = own["created_at"] + max(own.get("max_seconds", 0), self.max_seconds)
        if time.time() < until:
            shared_store().revoke_eventually([key], until=until)
        with suppress(StoreUnavailable):  # the list leaves out what has ended
            shared_store().unregister(owner, [own["id"]])

    def end_devices(self, session_ids: Sequence[str]) -> None:
        """End the sessions of some devices; see `end`."""
        until = time.time() + self.max_seconds
        keys = [f"id {session_id}" for session_id in session_ids]
        shared_store().revoke_eventually(keys, until=until)

    def end_all(
        self, *, sub: str | None = None, sid: str | None = None, jti: str | None = None
    ) -> bool:
        """End all sessions of one session at Auth0, else of a user, else of everybody.

        Returns False, and changes nothing, if the logout token ``jti`` was taken.
        """
        key = (
            f"{self._sid} {sid}" if sid else f"{self._sub} {sub}" if sub else self._all
        )
        shared, until = shared_store(), time.time() + self.max_seconds
        # what has ended at Auth0 itself is over whenever a login here says it began
        at = until if sid and jti else shared.now()
        if not shared.revoke([key], at=at, until=until, jti=jti):
            return False
        with suppress(StoreUnavailable):  # what is left by id, since clocks may differ
            if ids := [d.id for d in (self.devices(sub) if sub and not sid else [])]:
                self.end_devices(ids)
                shared.unregister(key, ids)
        return True

    def register(self, state: Mapping[str, Any], user_agent: str) -> None:
        """Note on the user's list of devices that a session was used."""
        own = state["session"]
        begun_at = own.get("begun_at", own["created_at"])
        times = begun_at, own["used_at"], self.expires_at(state)
        sid = str(state["internal"].get("sid"))
        device = Device(own["id"], sid, browser_in_words(user_agent), *times)
        shared_store().register(f"{self._sub} {state['user']['sub']}", device)

    def devices(self, sub: str) -> list[Device]:
        """Return the sessions of a user that are not over, the last used one first."""
        shared, now = shared_store(), time.time()
        owner, found, over = f"{self._sub} {sub}", [], []
        devices = shared.devices(owner)
        keys = {d.id: [f"id {d.id}", f"{self._sid} {d.sid}"] for d in devices}
        # one question where none has ended, as most often
        ended_at = shared.ended_at([owner, self._all, *chain(*keys.values())])
        for device in devices:
            if device.created_at <= ended_at and device.created_at <= shared.ended_at(
                [owner, self._all, *keys[device.id]]
            ):
                over.append(device.id)
            elif now - device.used_at < self.idle_seconds:
                found.append(device)
        if over:
            shared.unregister(owner, over)
        return found

    def _max_seconds(self, own: Mapping[str, Any]) -> float:
        """Return what it was at login, or is today if that is less.

        A longer one is for later logins: what was ended is not remembered longer.
        """
        return float(min(own.get("max_seconds", self.max_seconds), self.max_seconds))
