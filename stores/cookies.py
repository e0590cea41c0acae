"""A Flask session that may span several cookies, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import BadData

if TYPE_CHECKING:
    from flask import Request, Response
    from flask.sessions import SessionMixin

#: Seconds that a login may take, and its cookie lives.
TRANSACTION_SECONDS = 3600
#: Bytes of all our cookies in one request; common servers take a line of 8 KB.
TOTAL_BYTES = 7_600
#: Bytes of value in one cookie: browsers drop one of more than 4096 bytes without a
#: word, and name, path and domain want room as well.
PIECE_BYTES = 3_000
#: Bytes of a cookie that Flask's own interface writes, its name included.
_SINGLE_BYTES = 3_950
_MOST_PIECES = -(-TOTAL_BYTES // PIECE_BYTES)
_TRANSACTION_PREFIX = "_a0_tx:"


class SpanningSession(SecureCookieSession):
    """Flask's session, with the transactions of logins under way beside it.

    Attributes:
        transactions: Sealed transactions by the identifier the SDK gave them. Each
            travels in a cookie of its own, so that logins started at the same
            moment do not overwrite one another.
        unreadable: Cookies came that are no session; they are cleared.
    """

    def __init__(
        self,
        initial: Mapping[str, Any] | None = None,
        *,
        transactions: Mapping[str, str] | None = None,
        unreadable: bool = False,
    ) -> None:
        super().__init__(initial)
        self.received = dict(transactions or {})
        self.transactions = dict(self.received)
        self.unreadable = unreadable


class SpanningSessionInterface(SecureCookieSessionInterface):
    """Keeps the session in as many cookies as it needs.

    One cookie is exactly Flask's own.
    Several are ``session``, ``session.1``, ``session.2``: the first begins with their
    number, so that a piece left over from a longer session is not mistaken for a
    part of this one, and one signature covers all, so that a missing or foreign
    piece makes it no session.
    """

    session_class = SpanningSession

    def open_session(self, app: Flask, request: Request) -> SpanningSession | None:
        """Open the session a request came with; called by Flask."""
        serializer = self.get_signing_serializer(app)
        if serializer is None:
            return None
        name = self.get_cookie_name(app)
        transactions = _transactions(name, request.cookies)
        value = _join(name, request.cookies)
        if not value:
            return SpanningSession(transactions=transactions)
        max_age = int(app.permanent_session_lifetime.total_seconds())
        try:
            data = serializer.loads(value, max_age=max_age)
        except BadData:
            return SpanningSession(transactions=transactions, unreadable=True)
        return SpanningSession(data, transactions=transactions)

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Write what changed; called by Flask after the view and its hooks."""
        if session.accessed:
            response.vary.add("Cookie")
        if not isinstance(session, SpanningSession):
            return
        self._save_transactions(app, session, response)
        name = self.get_cookie_name(app)
        if not session:
            if session.modified or session.unreadable:
                self._clear(app, response, _names(name))
        elif self.should_set_cookie(app, session):
            self._write(app, session, response, name)

    def bytes_left(self, app: Flask, session: SessionMixin) -> int:
        """Return how many more bytes of cookies there may be; negative if too many."""
        name, value = self.get_cookie_name(app), self._signed(app, session)
        pieces = len(_split(value))
        taken = len(value) + pieces * (len(name) + 8)
        for identifier, sealed in getattr(session, "transactions", {}).items():
            taken += len(name) + len(identifier) + len(sealed) + 4
        return TOTAL_BYTES - taken

    def _signed(self, app: Flask, session: SessionMixin) -> str:
        serializer = self.get_signing_serializer(app)
        return str(serializer.dumps(dict(session))) if serializer else ""

    def _attributes(self, app: Flask) -> dict[str, Any]:
        return {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "partitioned": self.get_cookie_partitioned(app),
            "samesite": self.get_cookie_samesite(app),
            "httponly": self.get_cookie_httponly(app),
        }

    def _write(
        self, app: Flask, session: SessionMixin, response: Response, name: str
    ) -> None:
        pieces = _split(self._signed(app, session))
        if len(pieces) > _MOST_PIECES:
            app.logger.error(
                "The session was not written: with what this app keeps in it, it is "
                "longer than browsers and servers take. AUTH0_REDIS_URL lifts that."
            )
            return
        expires = self.get_expiration_time(app, session)
        attributes = self._attributes(app)
        for cookie, piece in zip(_names(name), pieces, strict=False):
            response.set_cookie(cookie, piece, expires=expires, **attributes)
        left_over = _names(name)[len(pieces) :]
        self._clear(app, response, [n for n in left_over if n in request.cookies])

    def _clear(self, app: Flask, response: Response, names: list[str]) -> None:
        for name in names:
            response.delete_cookie(name, **self._attributes(app))
        response.vary.add("Cookie")

    def _save_transactions(
        self, app: Flask, session: SpanningSession, response: Response
    ) -> None:
        if session.transactions == session.received:
            return
        name, attributes = self.get_cookie_name(app), self._attributes(app)
        for identifier in session.received.keys() - session.transactions.keys():
            response.delete_cookie(_transaction_name(name, identifier), **attributes)
        for identifier, sealed in session.transactions.items():
            if session.received.get(identifier) != sealed:
                response.set_cookie(
                    _transaction_name(name, identifier),
                    sealed,
                    max_age=TRANSACTION_SECONDS,
                    **attributes,
                )


def bytes_left(app: Flask, session: SessionMixin) -> int | None:
    """Return how many more bytes the session may take, or None for no such limit.

    Flask's own interface has one cookie; a browser drops it without a word when it
    grows too long, and whoever signs in then is sent round in circles.
    """
    interface = app.session_interface
    if isinstance(interface, SpanningSessionInterface):
        return interface.bytes_left(app, session)
    if isinstance(interface, SecureCookieSessionInterface):
        serializer = interface.get_signing_serializer(app)
        value = str(serializer.dumps(dict(session))) if serializer else ""
        return _SINGLE_BYTES - len(interface.get_cookie_name(app)) - len(value)
    return None


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


def _transactions(name: str, cookies: Mapping[str, str]) -> dict[str, str]:
    prefix = _transaction_name(name, _TRANSACTION_PREFIX)
    return {
        _TRANSACTION_PREFIX + cookie.removeprefix(prefix): value
        for cookie, value in cookies.items()
        if cookie.startswith(prefix)
    }
