"""``flask.session`` in cookies: the app's part in Flask's own, ours in our own.

The app's keys travel in Flask's cookie, by Flask's own serializer, so that whoever
shares that cookie goes on reading it. What the stores keep is encrypted and
authenticates itself, so it travels in cookies of ours without a signature around it:
the session in as many as it needs, each transaction in one of a few slots.
Ours are sent only when they change, so a slow response brings no old token back.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from flask import Flask, Request, Response, current_app, request, session
from flask.sessions import (
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from itsdangerous import BadData
from werkzeug.datastructures import MultiDict

from .encryption import Json

logger = logging.getLogger(__name__)

#: What the SDK's identifiers are in ``flask.session``: the session, transactions.
STATE_KEY = "_a0_session"
TRANSACTION_PREFIX = "_a0_tx:"
_OURS = (STATE_KEY, TRANSACTION_PREFIX)
#: Bytes of all our cookies in one request; common servers take a line of 8 KB.
TOTAL_BYTES = 7_500
#: Bytes of value in one cookie: browsers drop one of more than 4096 bytes silently,
#: and name, path and domain need room as well.
PIECE_BYTES = 3_000
#: Transactions at most; bytes of a usual one; bytes of the one that may be longer.
SLOTS, SLOT_BYTES, LONG_BYTES = 8, 600, 3_200
#: Seconds that the clocks of two machines may differ by.
CLOCK_TOLERANCE = 60
#: Seconds that a transaction's cookie lives; longer than the transaction is valid,
#: so that a login that took too long still leads to the page it was started for.
_TRANSACTION_COOKIE_SECONDS = 14_400
#: Bytes of the one cookie that an interface of somebody else's may write.
_SINGLE_BYTES = 3_950
#: Bytes of Set-Cookie in one response that common proxies may not take.
_LONG_HEADERS = 3_500
_MAX_PIECES = -(-TOTAL_BYTES // PIECE_BYTES)
#: Values that are tried where a browser sends several cookies of one name.
_MAX_TRIED = 8
#: Of the session's cookie in the demo of version 1.0, where it could span several.
_PREFIXES = "", "__Host-", "__Secure-"
_TRANSACTION = re.compile(rf"{TRANSACTION_PREFIX}[A-Za-z0-9_-]{{1,64}}")
_ATTRS = "domain", "path", "secure", "samesite", "partitioned"
_SLOTS = frozenset(str(slot) for slot in range(SLOTS + 1))
_slot_numbers = itertools.count()


def is_ours(key: object) -> bool:
    """Tell whether a key of ``flask.session`` is one of the stores'."""
    return isinstance(key, str) and key.startswith(_OURS)


def room_left() -> float:
    """Return how many bytes the session may still grow by; negative if too large."""
    interface = current_app.session_interface
    if (left := getattr(interface, "bytes_left", None)) is not None:
        return float(left(current_app, session))
    if not isinstance(interface, SecureCookieSessionInterface):
        return float("inf")
    serializer = interface.get_signing_serializer(current_app)
    value = str(serializer.dumps(dict(session))) if serializer else ""
    return _SINGLE_BYTES - len(interface.get_cookie_name(current_app)) - len(value)


class OwnCookies:
    """Our cookies in an app: their names and attributes, and the transactions in them.

    There is a fixed number of slots for transactions, so however many logins are
    started at the same moment, they stay within the budget; the latest ones win.

    Attributes:
        name: What all their names begin with, and the name of the session's. It has
            the prefix that browsers enforce: no sibling subdomain can plant a
            ``__Host-`` cookie (RFC 6265bis section 4.1.3). It is made from the app's
            own name, so that two apps on one host stay apart.
    """

    def __init__(
        self, interface: SessionInterface, app: Flask, received: Mapping[str, str]
    ) -> None:
        self._interface, self._app, self._received = interface, app, received
        apps = interface.get_cookie_name(app)
        plain = apps.removeprefix("__Host-").removeprefix("__Secure-")
        self.name = f"{plain}_auth0"
        if interface.get_cookie_secure(app):
            path, domain = interface.get_cookie_path(app), interface.get_cookie_domain
            is_shared = path != "/" or domain(app)
            self.name = f"__{'Secure' if is_shared else 'Host'}-{self.name}"
        self._slots = f"{self.name}_tx"
        self._old_prefix = f"{apps}_a0_tx."  # as version 1.0 named them

    @cached_property
    def attributes(self) -> Json:
        """What all carry: by the app's own settings, but hidden from scripts."""
        found = {n: getattr(self._interface, f"get_cookie_{n}", None) for n in _ATTRS}
        # Flask knows of partitioned cookies since 3.1
        own = {name: get(self._app) for name, get in found.items() if get}
        return {**own, "httponly": True}

    def transactions(self) -> dict[str, str]:
        """Return encrypted transactions by the keys of ``flask.session``."""
        return {key: encrypted for _, key, encrypted in self._found()}

    def write_transactions(
        self, response: Response, transactions: Mapping[str, str], room: int
    ) -> None:
        """Set the cookies of new transactions; delete those of the ones used up."""
        received = self.transactions()
        taken: set[str] = set()
        for name, key, _ in self._found():
            if key in transactions:
                taken.add(name)
            else:
                response.delete_cookie(name, **self.attributes)
        for key, encrypted in transactions.items():
            if received.get(key) != encrypted:
                value = f"{key.removeprefix(TRANSACTION_PREFIX)}.{encrypted}"
                taken.add(name := self._slot(value, taken, room))
                age = _TRANSACTION_COOKIE_SECONDS
                response.set_cookie(name, value, max_age=age, **self.attributes)

    def delete_received(self, response: Response, names: list[str]) -> None:
        """Delete those of some cookies that the request came with."""
        for name in names:
            if name in self._received:
                response.delete_cookie(name, **self.attributes)

    def _found(self) -> Iterator[tuple[str, str, str]]:
        """Yield the name of each cookie, the key it stands for, and its value."""
        # a sibling subdomain could plant an old one, which has no prefix
        takes_old = not self.name.startswith("__Host-")
        for name, value in self._received.items():
            if name.startswith(self._slots) and name[len(self._slots) :] in _SLOTS:
                state, _, encrypted = value.partition(".")
            elif takes_old and name.startswith(self._old_prefix):
                state, encrypted = name.removeprefix(self._old_prefix), value
            else:
                continue
            if _TRANSACTION.fullmatch(key := TRANSACTION_PREFIX + state):
                yield name, key, encrypted

    def _slot(self, value: str, taken: set[str], room: int) -> str:
        """Choose a free slot; logins started at the same moment get different ones."""
        if len(self._slots) + len(value) + 4 > SLOT_BYTES:
            return f"{self._slots}{SLOTS}"
        usable = max(2, min(SLOTS, (room - LONG_BYTES) // SLOT_BYTES))
        first = (os.getpid() + next(_slot_numbers)) % usable
        slots = [f"{self._slots}{(first + n) % usable}" for n in range(usable)]
        return next((slot for slot in slots if slot not in taken), slots[0])


class SplitSession(SecureCookieSession):
    """The app's session and ours in one dict.

    ``modified`` is about the app's part; ours is compared with what was received.
    """

    #: Our entries as received.
    received: Mapping[str, str]
    #: When our cookies expire, in seconds since 1970; None: when the browser closes.
    expires_at: float | None = None
    #: Whether ours came in the app's cookie, as version 1.0 wrote them.
    is_legacy: bool
    cookies: OwnCookies
    is_over = False  # a newer one may have begun in this browser
    _is_touched = False  # asked first, since comparing takes longer

    @property
    def ours(self) -> Json:
        """Our entries."""
        return {k: v for k, v in self.items() if str(k).startswith(_OURS)}

    @property
    def ours_changed(self) -> bool:
        """Whether the response will set our cookies."""
        return (self._is_touched or self.modified) and self.ours != self.received

    @property
    def app_part(self) -> Json:
        """The app's entries; Flask's mark of permanence alone is none."""
        part = {key: value for key, value in self.items() if not is_ours(key)}
        return {} if part.keys() == {"_permanent"} and STATE_KEY in self else part

    def __setitem__(self, key: str, value: Any) -> None:
        self._owner_of(key).__setitem__(self, key, value)

    def __delitem__(self, key: str) -> None:
        self._owner_of(key).__delitem__(self, key)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove an entry and return it."""
        return self._owner_of(key).pop(self, key, *default)

    def _owner_of(self, key: str) -> type[Json]:
        """Return whose methods change an entry; those of `dict` set no ``modified``."""
        if not is_ours(key):
            return SecureCookieSession
        self._is_touched = True
        return dict


class SplitSessionInterface(SecureCookieSessionInterface):
    """Keeps the app's part in Flask's cookie and ours in our own.

    Args:
        is_valid: Tells whether a value is a session of ours that is not over; asked
            only where a browser sends several cookies of our name.
    """

    def __init__(self, is_valid: Callable[[str], bool]) -> None:
        self._is_valid = is_valid
        self._warned_of_length = False

    def open_session(self, app: Flask, request: Request) -> SplitSession | None:
        """Open the session a request came with; called by Flask, never raises."""
        if not app.secret_key:
            return None
        cookies = OwnCookies(self, app, request.cookies)
        part = self._app_part(app, request)
        own = cookies.transactions()
        if encrypted := self._session(cookies.name, request.cookies):
            own[STATE_KEY] = encrypted
        opened = SplitSession({**part, **own})
        opened.cookies, opened.received = cookies, opened.ours
        opened.is_legacy = any(map(is_ours, part))
        if part.get("_permanent"):
            lifetime = app.permanent_session_lifetime.total_seconds()
            opened.expires_at = time.time() + lifetime
        return opened

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Write what changed; called by Flask after the view and its hooks."""
        if not isinstance(session, SplitSession):
            super().save_session(app, session, response)
            return
        was_accessed = session.accessed  # before Flask 3.1.3 the next line sets it
        writes_app = self.should_set_cookie(app, session)
        writes_ours = session.ours_changed or (session.is_legacy and writes_app)
        if was_accessed or writes_ours:
            # as text: `response.vary` is slow
            varies = response.headers.get("Vary", "")
            if "cookie" not in varies.lower().replace(",", " ").split():
                response.headers["Vary"] = f"{varies}, Cookie" if varies else "Cookie"
        if session.is_over or not (writes_app or writes_ours):
            return
        if (left := self.bytes_left(app, session)) < 0:
            logger.error(
                "The session was not written: it is %d bytes too large for cookies, "
                "mostly for %r. Set AUTH0_REDIS_URL to store sessions in Redis.",
                -left,
                max(session, key=lambda key: len(repr(session[key]))),
            )
        if left >= 0 and (writes_app or session.is_legacy):
            self._write_app_part(app, session, response)
        if writes_ours and (left >= 0 or STATE_KEY not in session):
            self._write_ours(session, response)

    def bytes_left(self, app: Flask, session: SessionMixin) -> int:
        """Return how many more bytes of cookies there may be; negative if too many."""
        name, part = "", dict(session)
        if isinstance(session, SplitSession):
            name, part = session.cookies.name, session.app_part
        # one usual login always fits, for a guard that asks for a fresh one
        total, transactions = TOTAL_BYTES, -SLOT_BYTES
        if part and (serializer := self.get_signing_serializer(app)):
            total -= len(self.get_cookie_name(app)) + len(str(serializer.dumps(part)))
        for key, value in session.items():
            if key == STATE_KEY:
                total -= len(value) + len(_split(value)) * (len(name) + 5)
            elif is_ours(key):
                transactions += len(key) + len(value) + len(name)
        return total - max(0, transactions)

    def _app_part(self, app: Flask, request: Request) -> Json:
        """Return what Flask's cookie says; the first of that name that is signed."""
        name, cookies = self.get_cookie_name(app), request.cookies
        names = [p + name for p in _PREFIXES if p + name in cookies]
        serializer = self.get_signing_serializer(app) if names else None
        if serializer is None:
            return {}
        lifetime = app.permanent_session_lifetime.total_seconds()
        for value in [v for name in names for v in _joined(name, cookies)]:
            try:
                data, signed_at = serializer.loads(value, return_timestamp=True)
            except BadData:
                logger.info(
                    "A session cookie was rejected: not signed with this SECRET_KEY."
                )
                continue
            age = time.time() - signed_at.timestamp()
            if not -CLOCK_TOLERANCE <= age <= lifetime:
                told = "A session cookie was rejected: it is %.0f seconds old."
                logger.info(told, age)
            elif isinstance(data, dict):
                return data
        return {}

    def _session(self, name: str, cookies: MultiDict[str, str]) -> str | None:
        found = list(itertools.islice(_joined(name, cookies), _MAX_TRIED))
        if len(found) > 1:
            logger.info("A browser sent several cookies named %s.", name)
            return next(filter(self._is_valid, found), found[0])
        return found[0] if found else None

    def _write_app_part(
        self, app: Flask, session: SplitSession, response: Response
    ) -> None:
        part = SecureCookieSession(session.app_part)
        part.modified = True
        name = self.get_cookie_name(app)
        if part or name in request.cookies:
            super().save_session(app, part, response)
        if session.is_legacy:
            old = [n for prefix in _PREFIXES for n in _names(prefix + name)]
            session.cookies.delete_received(response, old[1:])

    def _write_ours(self, session: SplitSession, response: Response) -> None:
        cookies, ours = session.cookies, session.ours
        names, encrypted = _names(cookies.name), ours.pop(STATE_KEY, None)
        pieces = _split(encrypted) if encrypted else []
        room = TOTAL_BYTES - sum(map(len, pieces))
        cookies.write_transactions(response, ours, room)
        if session.is_legacy or encrypted != session.received.get(STATE_KEY):
            age = None
            if session.expires_at is not None:
                age = max(0, int(session.expires_at - time.time()))
            for name, piece in zip(names, pieces, strict=False):
                response.set_cookie(name, piece, max_age=age, **cookies.attributes)
            cookies.delete_received(response, names[len(pieces) :])
        length = sum(map(len, response.headers.getlist("Set-Cookie")))
        if length > _LONG_HEADERS and not self._warned_of_length:
            self._warned_of_length = True
            logger.warning(
                "A response sets %d bytes of cookies. nginx with its default "
                "proxy_buffer_size of 4k answers 502 to that: set it to 12k.",
                length,
            )


def _names(name: str) -> list[str]:
    """Name the cookies that a session may span."""
    return [name, *(f"{name}.{index}" for index in range(1, _MAX_PIECES))]


def _split(value: str) -> list[str]:
    """Split a value; the first of several pieces begins with their number.

    So a piece left over from a longer session is not taken for a part of this one.
    """
    if len(value) <= PIECE_BYTES:
        return [value]
    number = -(-(len(value) + 2) // PIECE_BYTES)
    value = f"{number}~{value}"
    return [value[i : i + PIECE_BYTES] for i in range(0, len(value), PIECE_BYTES)]


def _joined(name: str, cookies: MultiDict[str, str]) -> Iterator[str]:
    """Yield each value that cookies of a name make, where there may be duplicates."""
    for first in cookies.getlist(name)[:_MAX_TRIED]:
        number, found, rest = first.partition("~")
        if not found:
            yield first
        elif number in {str(n) for n in range(2, _MAX_PIECES + 1)}:
            others = [cookies.getlist(n) or [""] for n in _names(name)[1 : int(number)]]
            for pieces in itertools.islice(itertools.product(*others), _MAX_TRIED):
                yield rest + "".join(pieces)
