"""A Flask session that may span several cookies, within a budget of bytes."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from flask.sessions import (
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
)
from itsdangerous import BadData, URLSafeTimedSerializer

from .jwe import MOST_REMEMBERED

if TYPE_CHECKING:
    from flask import Request, Response
    from flask.sessions import SessionMixin

logger = logging.getLogger(__name__)

#: Seconds that a login may take, and its cookie lives.
TRANSACTION_SECONDS = 3600
#: Bytes of all our cookies in one request; common servers take a line of 8 KB.
TOTAL_BYTES = 7_600
#: Bytes of value in one cookie: browsers drop one of more than 4096 bytes without a
#: word, and name, path and domain want room as well.
PIECE_BYTES = 3_000
#: Bytes of a cookie that Flask's own interface writes, its name included.
_SINGLE_BYTES = 3_950
#: Bytes of Set-Cookie in one answer that common proxies may not take.
_LONG_HEADERS = 3_500
_MOST_PIECES = -(-TOTAL_BYTES // PIECE_BYTES)
_TRANSACTION_PREFIX = "_a0_tx:"
#: What the SDK puts behind it; any other name is not ours, and not to be answered.
_STATE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_Read = Callable[[str], tuple[dict[str, Any] | str, float]]


class LoginsUnderWay:
    """The transactions of a browser, beside its session.

    Each travels in a cookie of its own, so that logins started at the same moment do
    not overwrite one another, nor a session.

    Args:
        cookies: What the browser sent.
        name: The name of the session's cookie.
    """

    def __init__(self, cookies: Mapping[str, str], name: str) -> None:
        self._cookies, self._name = cookies, name

    @cached_property
    def _received(self) -> dict[str, str]:
        prefix = _transaction_name(self._name, _TRANSACTION_PREFIX)
        return {
            _TRANSACTION_PREFIX + cookie.removeprefix(prefix): value
            for cookie, value in self._cookies.items()
            if cookie.startswith(prefix) and _STATE.fullmatch(cookie, len(prefix))
        }

    @cached_property
    def transactions(self) -> dict[str, str]:
        """What is sealed, by the SDK's identifiers; `save` writes what is changed."""
        return dict(self._received)

    @property
    def has_changed(self) -> bool:
        """Whether there is anything to save; not if nobody asked for any."""
        return "transactions" in vars(self) and self.transactions != self._received

    def save(
        self, response: Response, name: str, attributes: Mapping[str, Any]
    ) -> None:
        """Write the cookies of those that are new, clear those that are gone."""
        for identifier in self._received.keys() - self.transactions.keys():
            response.delete_cookie(_transaction_name(name, identifier), **attributes)
        for identifier, sealed in self.transactions.items():
            if self._received.get(identifier) != sealed:
                cookie = _transaction_name(name, identifier)
                response.set_cookie(
                    cookie, sealed, max_age=TRANSACTION_SECONDS, **attributes
                )


def vary_by_cookie(response: Response) -> None:
    """Say that an answer is not for everybody (RFC 9110 section 12.5.5)."""
    if "Vary" in response.headers:
        response.vary.add("Cookie")
    else:  # as most often; taking the header apart takes long
        response.headers.add("Vary", "Cookie")


def cookie_attributes(interface: SessionInterface, app: Flask) -> dict[str, Any]:
    """Return what every cookie of an app carries, by the app's own settings."""
    return {
        "domain": interface.get_cookie_domain(app),
        "path": interface.get_cookie_path(app),
        "secure": interface.get_cookie_secure(app),
        "partitioned": interface.get_cookie_partitioned(app),
        "samesite": interface.get_cookie_samesite(app),
        "httponly": interface.get_cookie_httponly(app),
    }


class SpanningSession(SecureCookieSession):
    """Flask's session, with the logins under way beside it.

    Attributes:
        under_way: The logins under way.
        unreadable: Cookies came that are no session; they are cleared.
    """

    def __init__(
        self,
        under_way: LoginsUnderWay,
        initial: Mapping[str, Any] | None = None,
        *,
        unreadable: bool = False,
    ) -> None:
        super().__init__(initial)
        self.under_way = under_way
        self.unreadable = unreadable


class SpanningSessionInterface(SecureCookieSessionInterface):
    """Keeps the session in as many cookies as it needs.

    One cookie is exactly Flask's own.
    Several are ``session``, ``session.1``, ``session.2``: the first begins with their
    number, so that a piece left over from a longer session is not mistaken for a
    part of this one, and one signature covers all, so that a missing or foreign
    piece makes it no session.
    """

    _warned = False
    _reader: tuple[object, _Read] | None = None

    def open_session(self, app: Flask, request: Request) -> SpanningSession | None:
        """Open the session a request came with; called by Flask."""
        read = self._read_with(app)
        if read is None:
            return None
        name = self.get_cookie_name(app)
        under_way = LoginsUnderWay(request.cookies, name)
        value = _join(name, request.cookies)
        if not value:
            return SpanningSession(under_way)
        try:
            said, signed_at = read(value)
        except BadData:
            return SpanningSession(under_way, unreadable=True)
        age = int(time.time()) - signed_at
        if not 0 <= age <= app.permanent_session_lifetime.total_seconds():
            return SpanningSession(under_way, unreadable=True)
        initial = self.serializer.loads(said) if isinstance(said, str) else said
        return SpanningSession(under_way, initial)

    def _read_with(self, app: Flask) -> _Read | None:
        """Return what reads and remembers cookies, made once for the keys of an app."""
        keys = app.secret_key, *(app.config["SECRET_KEY_FALLBACKS"] or ())
        if self._reader is None or self._reader[0] != keys:
            serializer = self.get_signing_serializer(app)
            if serializer is None:
                return None
            read = lru_cache(MOST_REMEMBERED)(partial(_read, self, serializer))
            self._reader = keys, read
        return self._reader[1]

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Write what changed; called by Flask after the view and its hooks."""
        if session.accessed:
            vary_by_cookie(response)
        if not isinstance(session, SpanningSession):
            return
        writes = bool(session) and self.should_set_cookie(app, session)
        unread = session.unreadable and session.accessed
        clears = not session and (session.modified or unread)
        if not (writes or clears or session.under_way.has_changed):
            return
        name, attributes = self.get_cookie_name(app), cookie_attributes(self, app)
        session.under_way.save(response, name, attributes)
        if clears:
            _clear(response, _names(name), attributes)
        elif writes:
            self._write(app, session, response, name, attributes)
            self._warn_of_long_headers(response)

    def bytes_left(self, app: Flask, session: SessionMixin) -> int:
        """Return how many more bytes of cookies there may be; negative if too many."""
        value = _signed(self, app, session)
        return self._left(self.get_cookie_name(app), value, session)

    def _left(self, name: str, value: str, session: SessionMixin) -> int:
        taken = len(value) + len(_split(value)) * (len(name) + 8)
        if isinstance(session, SpanningSession):
            for identifier, sealed in session.under_way.transactions.items():
                taken += len(name) + len(identifier) + len(sealed) + 4
        return TOTAL_BYTES - taken

    def _warn_of_long_headers(self, response: Response) -> None:
        length = sum(map(len, response.headers.getlist("Set-Cookie")))
        if length > _LONG_HEADERS and not self._warned:
            self._warned = True
            logger.warning(
                "An answer sets %d bytes of cookies. nginx with its default "
                "proxy_buffer_size of 4k answers 502 to that: set it to 12k.",
                length,
            )

    def _write(
        self,
        app: Flask,
        session: SessionMixin,
        response: Response,
        name: str,
        attributes: Mapping[str, Any],
    ) -> None:
        value = _signed(self, app, session)
        if self._left(name, value, session) < 0:
            logger.error(
                "The session was not written: with what this app keeps in it, it is "
                "longer than browsers and servers take. AUTH0_REDIS_URL lifts that."
            )
            return
        pieces, expires = _split(value), self.get_expiration_time(app, session)
        for cookie, piece in zip(_names(name), pieces, strict=False):
            response.set_cookie(cookie, piece, expires=expires, **attributes)
        left_over = _names(name)[len(pieces) :]
        _clear(response, [n for n in left_over if n in request.cookies], attributes)


def bytes_left(app: Flask, session: SessionMixin) -> int | None:
    """Return how many more bytes the session may take, or None for no such limit.

    Flask's own interface has one cookie; a browser drops it without a word when it
    grows too long, and whoever signs in then is sent round in circles.
    """
    interface = app.session_interface
    if (left := getattr(interface, "bytes_left", None)) is not None:
        return int(left(app, session))
    if isinstance(interface, SecureCookieSessionInterface):
        value = _signed(interface, app, session)
        return _SINGLE_BYTES - len(interface.get_cookie_name(app)) - len(value)
    return None


def _signed(
    interface: SecureCookieSessionInterface, app: Flask, session: SessionMixin
) -> str:
    serializer = interface.get_signing_serializer(app)
    return str(serializer.dumps(dict(session))) if serializer else ""


def _read(
    interface: SecureCookieSessionInterface,
    serializer: URLSafeTimedSerializer,
    value: str,
) -> tuple[dict[str, Any] | str, float]:
    """Return what a signed value says, and when it was signed.

    Requests share the answer: where anything in it can be changed, it is text.
    """
    data, signed_at = serializer.loads(value, return_timestamp=True)
    if not isinstance(data, dict):
        raise BadData("signed with this key, but no session")
    is_flat = all(isinstance(part, str | bool) for part in data.values())
    said = data if is_flat else interface.serializer.dumps(data)
    return said, signed_at.timestamp()


def _clear(
    response: Response, names: Iterable[str], attributes: Mapping[str, Any]
) -> None:
    for name in names:
        response.delete_cookie(name, **attributes)
    vary_by_cookie(response)


def _names(name: str) -> list[str]:
    """Name the cookies that a session may span."""
    return [name, *(f"{name}.{index}" for index in range(1, _MOST_PIECES))]


def _split(value: str) -> list[str]:
    if len(value) <= PIECE_BYTES:
        return [value]
    # "~" is no letter of Flask's signed values, so one cookie is never taken for many
    number = -(-(len(value) + 2) // PIECE_BYTES)
    value = f"{number}~{value}"
    return [value[i : i + PIECE_BYTES] for i in range(0, len(value), PIECE_BYTES)]


def _join(name: str, cookies: Mapping[str, str]) -> str:
    value = cookies.get(name, "")
    number, tilde, first = value.partition("~")
    if not tilde:
        return value
    if number not in {str(n) for n in range(2, _MOST_PIECES + 1)}:
        return value
    rest = _names(name)[1 : int(number)]
    return first + "".join(cookies.get(piece, "") for piece in rest)


def _transaction_name(name: str, identifier: str) -> str:
    return name + identifier.replace(":", ".")
