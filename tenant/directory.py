"""Who is known here, who is signed in, and what has been granted."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tenant.authorization import AuthorizationRequest
from tenant.store import Store

_DAY = 86400.0


@dataclass(frozen=True)
class User:
    """Somebody who can sign in.

    Attributes:
        username: The name on the login form's button; "alice", say.
        claims: All claims about the user; ``sub`` is always among them.
    """

    username: str
    claims: Mapping[str, Any]

    @property
    def sub(self) -> str:
        """The user's identifier (OpenID Connect Core, section 2)."""
        return str(self.claims["sub"])

    @property
    def label(self) -> str:
        """What to call the user on a page."""
        name = self.claims.get("name") or self.claims.get("email")
        return str(name or "nobody in particular")

    @property
    def detail(self) -> str:
        """What tells the user from another of the same name."""
        return str(self.claims.get("email") or self.sub)


@dataclass(frozen=True)
class Session:
    """A browser signed in at the tenant; ``auth_time`` in seconds since 1970."""

    user: User
    auth_time: float
    sid: str


@dataclass(frozen=True)
class Grant:
    """What a user let the app have: behind every code and every token."""

    session: Session
    scope: tuple[str, ...]
    audience: str | None = None
    nonce: str | None = None


@dataclass(frozen=True)
class PendingCode:
    """What a code stands for, and what has to be shown along with it."""

    grant: Grant
    redirect_uri: str
    code_challenge: str


class Directory:
    """The users, and all that is kept between requests; thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with no users; the clock gives seconds since 1970."""
        self.requests: Store[AuthorizationRequest] = Store(clock, 600)
        self.codes: Store[PendingCode] = Store(clock, 60)
        self.sessions: Store[Session] = Store(clock, 7 * _DAY)
        self.access_tokens: Store[Grant] = Store(clock, _DAY)
        self.refresh_tokens: Store[Grant] = Store(clock, 30 * _DAY)
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
