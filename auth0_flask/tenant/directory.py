"""Who is known here, who is signed in, and what has been granted."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

from auth0_flask.tenant.authorization import AuthorizationRequest
from auth0_flask.tenant.grant import Grant, PendingCode, Session, User
from auth0_flask.tenant.refresh_tokens import RefreshTokens
from auth0_flask.tenant.store import Store

_DAY = 86400.0


class Directory:
    """The users, and all that is kept between requests; thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with no users; the clock gives seconds since 1970."""
        self.requests: Store[AuthorizationRequest] = Store(clock, 600)
        self.codes: Store[PendingCode] = Store(clock, 60)
        self.sessions: Store[Session] = Store(clock, 7 * _DAY)
        self.access_tokens: Store[Grant] = Store(clock, _DAY)
        self.pushed: Store[Mapping[str, str]] = Store(clock, 90)
        self.assertions: Store[bool] = Store(clock, 60)
        self.refresh_tokens = RefreshTokens(clock)
        self._clock = clock
        self._users: dict[str, User] = {}
        self._lock = threading.Lock()

    def users(self) -> list[User]:
        """Return all users, in the order they came."""
        with self._lock:
            return list(self._users.values())

    def user(self, username: str) -> User | None:
        """Return one user, or None where the name is unknown."""
        with self._lock:
            return self._users.get(username)

    def add(self, username: str, claims: Mapping[str, Any]) -> User:
        """Add a user, or replace the one of that name; None leaves a claim out."""
        present = {name: value for name, value in claims.items() if value is not None}
        user = User(username, present)
        with self._lock:
            self._users[username] = user
        return user

    def newcomer(self, name: str, email: str) -> User:
        """Return a user for these details, the same one for the same details.

        Without any, it is somebody new every time, known by ``sub`` alone, and
        not kept among the users.
        """
        if not (name or email):
            sub = f"auth0|{secrets.token_hex(12)}"
            return User(sub, {"sub": sub})
        digest = hashlib.sha256((email or name).casefold().encode()).hexdigest()
        claims: dict[str, Any] = {"sub": f"auth0|{digest[:24]}", "name": name or email}
        if email:
            # Auth0 has not verified the address of a new account, either.
            claims |= {"email": email, "email_verified": False}
        return self.add(claims["sub"], claims)

    def present(self, user: User) -> User:
        """Return the user as known now, who may have changed since."""
        return self.user(user.username) or user

    def sign_in(self, user: User) -> Session:
        """Return a new session for the user, with a ``sid`` of its own."""
        return Session(user, self._clock(), secrets.token_urlsafe(24))
