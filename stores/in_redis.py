"""A Flask session in Redis: sealed there, and an id of no meaning in the cookie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.sessions import SessionInterface, SessionMixin, session_json_serializer
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from werkzeug.exceptions import ServiceUnavailable

from .cookies import LoginsUnderWay, cookie_attributes, vary_by_cookie
from .jwe import MOST_LETTERS, BadSeal, seal, unseal

if TYPE_CHECKING:
    from flask import Request, Response

#: Seconds to wait for Redis; one repetition must end within 2 seconds together.
_PATIENCE = 0.8
_ID = re.compile(r"[A-Za-z0-9_-]{43}")


class SessionsUnavailable(ServiceUnavailable):
    """Redis cannot be reached, or refuses; nobody is signed out by that."""

    error = "sessions_unavailable"
    title = "Out of order for a moment"
    description = "This site cannot look up who is signed in right now."
    hint = "Please try again in a moment. If you were signed in, you still are."

    def __init__(self) -> None:
        super().__init__(retry_after=5)


def connect(url: str) -> Redis:
    """Return a client that gives up soon and comes back by itself.

    Args:
        url: As redis-py takes it, such as ``redis://localhost:6379/0``.
    """
    return Redis.from_url(
        url,
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
        retry=Retry(NoBackoff(), 1),
    )


class RedisSession(SessionMixin):
    """A session that is fetched when it is first used.

    So a request that does not ask for it does not need Redis, and one that does is
    told of an outage where an error page can be made of it.
    """

    modified = False

    def __init__(
        self, interface: RedisSessionInterface, sid: str, under_way: LoginsUnderWay
    ) -> None:
        self._interface = interface
        self._fetched: dict[str, Any] | None = None
        self.stored_as = self.sid = sid
        self.under_way = under_way
        self.is_abandoned = False

    def abandon(self) -> None:
        """Let go of a session that cannot be reached: the browser forgets its id."""
        self.is_abandoned = True

    @property
    def data(self) -> dict[str, Any]:
        """What is kept.

        Raises:
            SessionsUnavailable: Redis cannot be reached.
        """
        if self._fetched is None:
            found = self._interface.fetch(self.stored_as) if self.stored_as else None
            if found is None:
                self.stored_as = ""  # an id that is not ours is never taken over
            self._fetched = found or {}
        return self._fetched

    @property
    def was_used(self) -> bool:
        """Whether it was fetched."""
        return self._fetched is not None

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.data[key] = value
        self.modified = True

    def __delitem__(self, key: str) -> None:
        del self.data[key]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class RedisSessionInterface(SessionInterface):
    """Keeps sessions in Redis.

    Args:
        client: Of redis-py.
        secrets: Newest first; the first seals, all open.
        seconds: How long a session is kept after it was last written.
    """

    def __init__(self, client: Redis, *, secrets: Sequence[str], seconds: int) -> None:
        self._redis = client
        self._secrets = tuple(secrets)
        self._seconds = seconds

    def open_session(self, app: Flask, request: Request) -> RedisSession:
        """Note which session a request came with; called by Flask."""
        name = self.get_cookie_name(app)
        sid = request.cookies.get(name, "")
        under_way = LoginsUnderWay(request.cookies, name)
        return RedisSession(self, sid if _ID.fullmatch(sid) else "", under_way)

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Write what changed; called by Flask after the view and its hooks."""
        if session.accessed:
            vary_by_cookie(response)
        if not isinstance(session, RedisSession):
            return
        attributes = cookie_attributes(self, app)
        session.under_way.save(response, self.get_cookie_name(app), attributes)
        try:
            self._save(app, session, response, attributes)
        except RedisError:
            _answer_instead(app, response)

    def bytes_left(self, app: Flask, session: SessionMixin) -> int:
        """Return how many more bytes fit; negative if too many."""
        return MOST_LETTERS - len(self._sealed("", session))

    def regenerate(self, session: SessionMixin) -> None:
        """Give a session a new id, so that nobody who knew the old one has it."""
        if isinstance(session, RedisSession):
            session.sid = ""
            session.modified = True

    def fetch(self, sid: str) -> dict[str, Any] | None:
        """Return a session, or None if there is none of that id."""
        try:
            sealed = self._redis.get(_key(sid))
        except RedisError as error:
            raise SessionsUnavailable from error
        try:
            text = sealed.decode() if isinstance(sealed, bytes) else sealed
            found = unseal(_key(sid), text, self._secrets, remember=True)["session"]
        except (BadSeal, ValueError):
            return None
        data: dict[str, Any] = session_json_serializer.loads(found)
        return data

    def _save(
        self,
        app: Flask,
        session: RedisSession,
        response: Response,
        attributes: dict[str, Any],
    ) -> None:
        name = self.get_cookie_name(app)
        if session.is_abandoned:
            response.delete_cookie(name, **attributes)
            return
        if not session.was_used:
            return
        if not session:
            if session.modified or session.sid:
                self._forget(session.stored_as)
                response.delete_cookie(name, **attributes)
        elif self.should_set_cookie(app, session) and self._store(session):
            expires = self.get_expiration_time(app, session)
            response.set_cookie(name, session.sid, expires=expires, **attributes)

    def _store(self, session: RedisSession) -> bool:
        """Write a session; not one that was ended meanwhile, which stays ended."""
        goes_on = bool(session.stored_as) and session.sid == session.stored_as
        if not goes_on:
            session.sid = token_urlsafe(32)
        written = self._redis.set(
            _key(session.sid),
            self._sealed(session.sid, session),
            ex=self._seconds,
            xx=goes_on,
        )
        if not goes_on:
            self._forget(session.stored_as)
        return bool(written)

    def _forget(self, sid: str) -> None:
        if sid:
            self._redis.delete(_key(sid))

    def _sealed(self, sid: str, session: SessionMixin) -> str:
        data = {"session": session_json_serializer.dumps(dict(session))}
        return seal(_key(sid), data, self._secrets)


def _key(sid: str) -> str:
    """Return where a session is: whoever reads Redis learns no id from that."""
    return f"auth0-flask:session:{sha256(sid.encode()).hexdigest()}"


def _answer_instead(app: Flask, response: Response) -> None:
    """Turn an answer that could not be kept into the page for an outage."""
    page = app.make_response(app.handle_user_exception(SessionsUnavailable()))
    response.status_code = page.status_code
    response.headers.remove("Location")
    for name in ("Content-Type", "Retry-After"):
        if name in page.headers:
            response.headers[name] = page.headers[name]
    response.set_data(page.get_data())
