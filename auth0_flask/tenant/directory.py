"""Who is known here, who is signed in, and what has been granted."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from auth0_flask.tenant.authorization import AuthorizationRequest
from auth0_flask.tenant.factors import Ceremony, Method, Methods
from auth0_flask.tenant.users import (
    Approval,
    Connect,
    Grant,
    Message,
    PendingCode,
    PendingFactor,
    Question,
    Session,
    User,
)

T = TypeVar("T")

_DAY = 86400.0
_REFRESH_LIFETIME = 30 * _DAY


class Store(Generic[T]):
    """Values under unguessable keys, forgotten after a while; thread-safe."""

    def __init__(self, clock: Callable[[], float], lifetime: float) -> None:
        """Make an empty store.

        Args:
            clock: Gives the present time in seconds since 1970.
            lifetime: Seconds an entry lives unless ``put`` says otherwise.
        """
        self._clock = clock
        self.lifetime = lifetime
        self._entries: dict[str, tuple[float, T]] = {}
        self._lock = threading.Lock()

    def put(
        self, value: T, *, key: str | None = None, lifetime: float | None = None
    ) -> str:
        """Keep a value and return its key, random unless given.

        Args:
            value: What to keep.
            key: The key, where the caller has made an unguessable one.
            lifetime: Seconds until it expires; the store's own by default.
        """
        key = key or secrets.token_urlsafe(32)
        now = self._clock()
        expires = now + (self.lifetime if lifetime is None else lifetime)
        with self._lock:
            self._forget_expired(now)
            self._entries[key] = (expires, value)
        return key

    def add(self, key: str, value: T, *, lifetime: float) -> bool:
        """Keep a value unless its key is taken; tell whether it was kept."""
        now = self._clock()
        with self._lock:
            self._forget_expired(now)
            kept = self._entries.setdefault(key, entry := (now + lifetime, value))
        return kept is entry

    def values(self) -> list[T]:
        """Return all values that have not expired."""
        with self._lock:
            self._forget_expired(self._clock())
            return [value for _, value in self._entries.values()]

    def get(self, key: str) -> T | None:
        """Return the value, or None where it is unknown or expired."""
        with self._lock:
            return self._live(self._entries.get(key))

    def take(self, key: str) -> T | None:
        """Return the value and forget it: of two callers only one gets it."""
        with self._lock:
            return self._live(self._entries.pop(key, None))

    def _live(self, entry: tuple[float, T] | None) -> T | None:
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    def _forget_expired(self, now: float) -> None:
        for key in [k for k, (expires, _) in self._entries.items() if expires <= now]:
            del self._entries[key]


class _Family:
    """The refresh tokens that came of one login; only the last is good."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.last = ""
        self.revoked = False


class RefreshTokens:
    """Refresh tokens and the families they are of; thread-safe.

    Attributes:
        reuse_detected: How often a spent token has ended its family.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with none; the clock gives seconds since 1970."""
        # Spent tokens stay known, for to recognize them is what detects reuse.
        self._families: Store[_Family] = Store(clock, _REFRESH_LIFETIME)
        self._lock = threading.Lock()
        self.reuse_detected = 0

    def begin(self, grant: Grant) -> str:
        """Return the first token of a new family."""
        with self._lock:
            return self._next(_Family(grant))

    def grant(self, token: str) -> Grant | None:
        """Return what a good token stands for; a spent one ends its family."""
        with self._lock:
            family = self._family(token)
            return family.grant if family else None

    def rotate(self, token: str) -> str | None:
        """Spend a good token and return the next; a spent one ends its family."""
        with self._lock:
            family = self._family(token)
            return self._next(family) if family else None

    def prove(self, token: str, session: Session) -> None:
        """Have a token's family go on for a session whose user proved more."""
        with self._lock:
            family = self._families.get(token)
            if family is not None:
                family.grant = replace(family.grant, session=session)

    def revoke(self, token: str) -> None:
        """End a token's family, if it is known."""
        with self._lock:
            family = self._families.get(token)
            if family is not None:
                family.revoked = True

    def revoke_user(self, sub: str) -> None:
        """End all families of a user."""
        with self._lock:
            for family in self._families.values():
                if family.grant.session.user.sub == sub:
                    family.revoked = True

    def _family(self, token: str) -> _Family | None:
        family = self._families.get(token)
        if family is None or family.revoked:
            return None
        if token != family.last:
            # Its rightful owner and a thief look the same: neither goes on.
            family.revoked = True
            self.reuse_detected += 1
            return None
        return family

    def _next(self, family: _Family) -> str:
        family.last = self._families.put(family)
        return family.last


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
        self.mfa_tokens: Store[PendingFactor] = Store(clock, 600)
        self.unproved: Store[tuple[AuthorizationRequest, Session]] = Store(clock, 600)
        self.methods = Methods(clock)
        self.messages: Store[Message] = Store(clock, 300)
        self.ceremonies: Store[Ceremony] = Store(clock, 300)
        self.approvals: Store[Approval] = Store(clock, 300)
        self.transfers: Store[tuple[User, Mapping[str, str] | None]] = Store(clock, 60)
        self.questions: Store[Question] = Store(clock, 300)
        self.connects: Store[Connect] = Store(clock, 300)
        self.enrolments: Store[tuple[Method, Ceremony]] = Store(clock, 300)
        self.answers: dict[str, bool] = {}
        self.accepted: dict[tuple[str, str], User] = {}
        self.accounts: dict[str, dict[str, dict[str, Any]]] = {}
        self.linked: dict[str, set[str]] = {}
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

    def find(self, name: User | str) -> User:
        """Return a user by name, ``sub`` or email.

        Raises:
            LookupError: If there is none.
        """
        if isinstance(name, User):
            return name
        for user in self.users():
            if name in {user.username, user.sub, user.claims.get("email")}:
                return user
        raise LookupError(f"No user {name!r} here.")

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

    def owner(self, realm: str, address: str) -> User:
        """Return whose email or phone number this is; somebody new's, if nobody's."""
        claim = "email" if realm == "email" else "phone_number"
        for user in self.users():
            if user.claims.get(claim) == address:
                return user
        sub = f"{realm}|{hashlib.sha256(address.casefold().encode()).hexdigest()[:24]}"
        claims = {"sub": sub, "name": address, claim: address}
        return self.add(sub, {**claims, f"{claim}_verified": True})

    def present(self, user: User) -> User:
        """Return the user as known now, who may have changed since."""
        return self.user(user.username) or user

    def sign_in(self, user: User) -> Session:
        """Return a new session for the user, with a ``sid`` of its own."""
        return Session(user, self._clock(), secrets.token_urlsafe(24))
