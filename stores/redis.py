"""Encrypted sessions, revocations and refresh results in Redis, for many machines."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from secrets import token_urlsafe
from typing import Any
from weakref import finalize

from flask import Flask, Request, Response, has_request_context
from flask.sessions import SessionInterface, SessionMixin, session_json_serializer
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import LockError
from redis.lock import Lock
from redis.retry import Retry

from auth0_flask.errors import StoreUnavailable

from .base import answer_instead, is_answering, request_state
from .cookies import STATE_KEY, TOTAL_BYTES, TRANSACTION_PREFIX, OwnCookies
from .encryption import MAX_CHARACTERS, DecryptionError, Json, decrypt, encrypt
from .shared import Device, SharedStore, digest

#: Seconds to wait for Redis; one repetition must end within 2 seconds together.
_PATIENCE = 0.8
_PREFIX = "auth0-flask"
_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_REST, _END = "the rest of a session in Redis", 22  # characters of a tag
#: Keys: what to note, and last the jti, if there is one. Arguments: at, until in
#: milliseconds, and a word of this call's own or nothing.
#: A client that got no answer sends the same call again, which is no replay.
_REVOKE = """
local now = redis.call('TIME')
local left = math.floor(ARGV[2] - now[1] * 1000 - now[2] / 1000)
local last = #KEYS
if ARGV[3] ~= '' then
    local taken = redis.call('GET', KEYS[last])
    if taken and taken ~= ARGV[3] then return 0 end
    if left > 0 then redis.call('SET', KEYS[last], ARGV[3], 'PX', left) end
    last = last - 1
end
for i = 1, (left > 0 and last or 0) do
    local old = redis.call('GET', KEYS[i])
    local keep = math.max(left, redis.call('PTTL', KEYS[i]))
    local at = old and tonumber(old) > tonumber(ARGV[1]) and old or ARGV[1]
    redis.call('SET', KEYS[i], at, 'PX', keep)
end
return 1
"""
#: Key: a session's. Its value is followed by the names of what may have ended it;
#: returned are both, and the times that are noted under those names.
_FETCH = """
local value = redis.call('GET', KEYS[1])
local found = {value}
for name in string.gmatch(string.match(value or '', ' .*') or '', '%S+') do
    found[#found + 1] = redis.call('GET', name) or ''
end
return found
"""


def connect(url: str) -> Redis:
    """Return a client of redis-py that gives up soon and reconnects by itself."""
    waits = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
    client = Redis.from_url(url, retry=Retry(NoBackoff(), 1), **waits)
    # else Python warns, where the garbage collector comes to a socket before this
    finalize(client, client.connection_pool.disconnect)
    return client


@contextmanager
def _asking(about: str) -> Iterator[None]:
    try:
        yield
    except RedisError as cause:
        raise StoreUnavailable(f"{about}_unavailable", cause) from cause


class RedisStore(SharedStore):
    """Shares revocations and refresh results among all machines, in Redis.

    It cannot know since when Redis remembers: one that was emptied has forgotten.
    """

    remembers = True
    name = "Redis, for all machines that share it"

    def __init__(self, client: Redis) -> None:
        super().__init__()
        self._redis = client
        self._revoke = client.register_script(_REVOKE)

    def revoke(
        self, keys: Sequence[str], *, at: float, until: float, jti: str | None = None
    ) -> bool:
        """See `SharedStore.revoke`."""
        names, word = [_key("revoked", key) for key in keys], ""
        if jti is not None:
            names.append(_key("seen", jti))
            word = token_urlsafe(12)
        with _asking("revocations"):
            return bool(self._revoke(names, [repr(at), int(until * 1000), word]))

    def revoked_at(self, keys: Sequence[str]) -> float:
        """See `SharedStore.revoked_at`; 0.0 if there is none."""
        names = [_key("revoked", key) for key in keys]
        known = (request_state().ended if has_request_context() else None) or {}
        if known.keys() >= set(names):  # they came with the session; once
            found = [known.pop(name) for name in names]
        else:
            with _asking("revocations"):
                found = self._redis.mget(names)
        return max((float(at) for at in found if at), default=0.0)

    def now(self) -> float:
        """See `SharedStore.now`; the clocks of machines differ by seconds."""
        with _asking("revocations"):
            seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def register(self, owner: str, device: Device) -> None:
        """See `SharedStore.register`."""
        name = _key("devices", owner)
        with _asking("revocations"):
            self._redis.hset(name, device.id, json.dumps(asdict(device)))
            until = max([device.until, *[d.until for d in self.devices(owner)]])
            self._redis.expireat(name, int(until) + 1)

    def unregister(self, owner: str, session_ids: Sequence[str]) -> None:
        """See `SharedStore.unregister`."""
        with _asking("revocations"):
            self._redis.hdel(_key("devices", owner), *session_ids)

    def devices(self, owner: str) -> list[Device]:
        """See `SharedStore.devices`."""
        with _asking("revocations"):
            found = self._redis.hvals(_key("devices", owner))
        devices = [Device(**json.loads(entry)) for entry in found]
        if over := [d.id for d in devices if d.until <= time.time()]:
            self.unregister(owner, over)
        current = [device for device in devices if device.id not in over]
        return sorted(current, key=lambda device: -device.used_at)

    def problems(self) -> Sequence[str]:
        """See `SharedStore.problems`; it tries the commands and scripts of the app."""
        word, until = token_urlsafe(12), time.time() + 10
        if release := self.lock(word, 5.0):
            release()
        self.keep_result(word, word, 5.0)
        if self.result(word) != word:
            return ("Redis does not return what was written: is it a cluster?",)
        with _asking("sessions"):
            self._redis.eval(_FETCH, 1, _key("session", word))
            self._redis.delete(_key("session", word))
        self.revoke([f"check {word}"], at=time.time(), until=until, jti=word)
        self.revoked_at([f"check {word}"])
        self.register(word, Device(word, word, word, until, until, until))
        self.unregister(word, [word])
        found = {}
        with suppress(RedisError):  # many a provider does not allow the question
            found = self._redis.config_get("maxmemory-policy")
        policy = found.get("maxmemory-policy") or "noeviction"
        if policy == "noeviction":
            return ()
        return (
            f"Redis has the maxmemory-policy {policy}, which forgets sessions and "
            "logouts when memory is short. Set it to noeviction.",
        )

    def lock(self, key: str, seconds: float) -> Callable[[], object] | None:
        """See `SharedStore.lock`."""
        name, word = f"{_PREFIX}:refresh:{key}", f"locked {token_urlsafe(12)}"
        lock = Lock(self._redis, name, seconds, blocking=False, thread_local=False)
        with _asking("refreshes"):
            # or where the answer was lost, and it was asked again
            if not lock.acquire(token=word) and _text(self._redis.get(name)) != word:
                return None

        def release() -> None:
            # an error of the lock itself means that it has expired meanwhile
            with _asking("refreshes"), suppress(LockError):
                lock.do_release(word)

        return release

    def result(self, key: str) -> str | None:
        """See `SharedStore.result`."""
        with _asking("refreshes"):
            found = _text(self._redis.get(f"{_PREFIX}:refresh:{key}"))
        return None if found is None or found.startswith("locked ") else found

    def keep_result(self, key: str, encrypted: str, seconds: float) -> None:
        """See `SharedStore.keep_result`."""
        milliseconds = max(1, int(seconds * 1000))
        with _asking("refreshes"):
            self._redis.set(f"{_PREFIX}:refresh:{key}", encrypted, px=milliseconds)


class RedisSession(SessionMixin):
    """A session that is fetched when it is first used.

    So a request that does not ask for it does not need Redis, and one that does gets
    a page for an outage. Transactions are kept in cookies.
    """

    modified = False
    was_used = property(lambda self: "data" in vars(self))  # it was fetched

    def __init__(
        self, interface: RedisSessionInterface, sids: list[str], cookies: OwnCookies
    ) -> None:
        self._interface, self._sids, self.cookies = interface, sids, cookies
        self.stored_as = self.sid = sids[0] if sids else ""
        self.received = cookies.transactions()
        self.transactions = dict(self.received)
        self.is_signed_out = False
        self.names: list[str] = []  # in Redis, of what may have ended it
        self.login: str | None = None  # as fetched
        self.outage: StoreUnavailable | None = None  # it is out of reach

    @cached_property
    def data(self) -> Json:
        """The session's entries, fetched from Redis, which is asked once."""
        handled = sys.exc_info()[2]
        if self.outage and not is_answering(handled):
            raise self.outage
        self.stored_as = ""  # an id that is not ours is never taken over
        for sid in () if self.outage else self._sids:
            try:
                found, self.names = self._interface.fetch(sid)
            except DecryptionError:  # perhaps another machine has a newer secret
                continue
            except StoreUnavailable as outage:
                self.outage = outage
                if not is_answering(handled):
                    raise
                break
            if found is not None:
                self.stored_as = self.sid = sid
                self.login = found.get(STATE_KEY)
                return found
        return {}

    def ended_by(self, keys: Sequence[str]) -> None:
        """Have what may have ended this session fetched with it."""
        self.names = [_key("revoked", key) for key in keys]

    def __getitem__(self, key: str) -> Any:
        return self._of(key)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._of(key)[key] = value
        self.modified |= not str(key).startswith(TRANSACTION_PREFIX)

    def __delitem__(self, key: str) -> None:
        del self._of(key)[key]
        self.is_signed_out = self.is_signed_out or key == STATE_KEY
        self.modified |= not str(key).startswith(TRANSACTION_PREFIX)

    def __iter__(self) -> Iterator[str]:
        return iter({**self.data, **self.transactions})

    def __len__(self) -> int:
        return len(self.data) + len(self.transactions)

    def _of(self, key: str) -> Json:
        is_in_cookies = str(key).startswith(TRANSACTION_PREFIX)
        return self.transactions if is_in_cookies else self.data


class RedisSessionInterface(SessionInterface):
    """Keeps sessions in Redis, for seconds after each write; a cookie has the id."""

    def __init__(self, client: Redis, *, secrets: Sequence[str], seconds: int) -> None:
        self._redis, self._secrets, self._seconds = client, tuple(secrets), seconds

    def open_session(self, app: Flask, request: Request) -> RedisSession:
        """Note which session a request came with; called by Flask."""
        sent = request.cookies.getlist(self.get_cookie_name(app))
        sids = [sid for sid in sent if _ID.fullmatch(sid)][:8]
        return RedisSession(self, sids, OwnCookies(self, app, request.cookies))

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Write what changed; called by Flask after the view and its hooks."""
        if session.accessed:
            response.vary.add("Cookie")
        if not isinstance(session, RedisSession):
            return
        if session.transactions != session.received:
            kept = session.transactions
            session.cookies.write_transactions(response, kept, TOTAL_BYTES)
        try:
            with _asking("sessions"):
                self._save(app, session, response)
        except StoreUnavailable as outage:
            name, attributes = self.get_cookie_name(app), session.cookies.attributes
            if session.is_signed_out:  # the browser forgets it whatever Redis says
                response.delete_cookie(name, **attributes)
            elif not session.outage:  # else it is a page for that already
                answer_instead(app, response, outage)

    def bytes_left(self, app: Flask, session: RedisSession) -> int:
        """Return how many more bytes fit; negative if too many."""
        cookies = TOTAL_BYTES - sum(map(len, session.transactions.values()))
        if not session.was_used:
            return cookies  # a login starts without Redis
        return min(cookies, MAX_CHARACTERS - len(self._encrypted("", session)))

    def regenerate(self, session: RedisSession) -> None:
        """Give a session a new id, so that nobody who knew the old one has it."""
        session.sid, session.modified = "", True

    def fetch(self, sid: str) -> tuple[Json | None, list[str]]:
        """Return a session, if there is one of that id, and what may have ended it.

        When it was ended is asked at the same time, and noted for this request.
        """
        key = _key("session", sid)
        with _asking("sessions"):
            found = self._redis.eval(_FETCH, 1, key)
        if not found[0]:
            return None, []
        value, *names = str(_text(found[0])).split(" ")
        most, mark, rest = value.rpartition("~")
        kept = decrypt(_REST if mark else key, rest, self._secrets)
        if mark and kept["of"] != key:
            raise DecryptionError("it is another session's")
        session = session_json_serializer.loads(kept["session"])
        if has_request_context():
            request_state().ended = dict(zip(names, found[1:], strict=True))
        return {**session, STATE_KEY: most + kept["end"]} if most else session, names

    def _save(self, app: Flask, session: RedisSession, response: Response) -> None:
        name, attributes = self.get_cookie_name(app), session.cookies.attributes
        if session.outage and (session.is_signed_out or session.modified):
            raise session.outage
        if not session.was_used:
            return
        if not session.data and session.modified:
            self._delete(session.stored_as)
            response.delete_cookie(name, **attributes)
        elif self.should_set_cookie(app, session) and self._store(session):
            expires = self.get_expiration_time(app, session)
            response.set_cookie(name, session.sid, expires=expires, **attributes)

    def _store(self, session: RedisSession) -> bool:
        """Write a session; not one that was ended meanwhile, which stays ended."""
        goes_on = bool(session.stored_as) and session.sid == session.stored_as
        if not goes_on:
            session.sid = token_urlsafe(32)
        elif session.data.get(STATE_KEY) == session.login:  # others may change it
            with suppress(DecryptionError):  # of a newer secret
                newest, session.names = self.fetch(session.sid)
                session.data |= {STATE_KEY: (newest or {}).get(STATE_KEY)}
        key, value = _key("session", session.sid), self._encrypted(session.sid, session)
        written = self._redis.set(key, value, ex=self._seconds, xx=goes_on)
        if not goes_on:
            self._delete(session.stored_as)
        return bool(written)

    def _delete(self, sid: str) -> None:
        if sid:
            self._redis.delete(_key("session", sid))

    def _encrypted(self, sid: str, session: RedisSession) -> str:
        # ours is encrypted already; without its tag it is no cookie, and fits no other
        data = dict(session.data)
        ours = data.pop(STATE_KEY, None) or ""
        kept = {"session": session_json_serializer.dumps(data), "end": ours[-_END:]}
        kept["of"] = _key("session", sid)
        encrypted = encrypt(_REST, kept, self._secrets)
        return " ".join([f"{ours[:-_END]}~{encrypted}", *session.names])


def _key(kind: str, name: str) -> str:
    """Return where something is: whoever reads Redis learns no id from that."""
    return f"{_PREFIX}:{kind}:{digest(name)}"


def _text(found: Any) -> str | None:
    return found.decode("ascii", "replace") if isinstance(found, bytes) else found
