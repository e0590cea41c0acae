"""Who can sign in, who signed in, and what they let the app do."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from auth0_flask.tenant.authorization import AuthorizationRequest

#: The claim that roles are in, which an Action would set at Auth0.
ROLES = "https://example.com/roles"


@dataclass(frozen=True)
class Organization:
    """A customer of the app, whose members sign in to it.

    Attributes:
        org_id: Its identifier, which begins with "org_".
        name: Its name in addresses and tokens; "acme", say.
        display_name: What a page calls it.
    """

    org_id: str
    name: str
    display_name: str

    @property
    def claims(self) -> dict[str, str]:
        """The claims of tokens issued for it."""
        return {"org_id": self.org_id, "org_name": self.name}


class Organizations:
    """All organizations; thread-safe."""

    def __init__(self) -> None:
        """Start with none."""
        self._by_name: dict[str, Organization] = {}
        self._lock = threading.Lock()

    def add(
        self, name: str, org_id: str | None, display_name: str | None
    ) -> Organization:
        """Add one, or replace the one of that name."""
        added = Organization(
            org_id or f"org_{secrets.token_hex(8)}",
            name,
            display_name or name.capitalize(),
        )
        with self._lock:
            self._by_name[name.casefold()] = added
        return added

    def find(self, id_or_name: str) -> Organization | None:
        """Return the one with this identifier or name, whatever the name's case."""
        with self._lock:
            by_id = {each.org_id: each for each in self._by_name.values()}
            by_name = self._by_name.get(id_or_name.casefold())
        return by_id.get(id_or_name) or by_name


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
    """A browser signed in at the tenant.

    Attributes:
        user: Who is.
        auth_time: When the user last proved it, in seconds since 1970.
        sid: Its identifier.
        amr: "mfa" where there was a second factor (RFC 8176).
        acr: What the app asked this proof to be good for.
        act: Who acts for the user (RFC 8693, section 4.1).
    """

    user: User
    auth_time: float
    sid: str
    amr: tuple[str, ...] = ()
    acr: str | None = None
    act: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Grant:
    """What a user let the app have: behind every code and every token."""

    session: Session
    scope: tuple[str, ...]
    audience: str | None = None
    nonce: str | None = None
    organization: Organization | None = None


@dataclass(frozen=True)
class PendingCode:
    """What a code stands for, and what has to be shown along with it."""

    grant: Grant
    redirect_uri: str
    code_challenge: str


@dataclass(frozen=True)
class PendingFactor:
    """A grant that waits for a second factor.

    ``family`` is the refresh token that asked for it, or None at a login.
    """

    grant: Grant
    family: str | None

    @property
    def sub(self) -> str:
        """Whose factor it is."""
        return self.grant.session.user.sub


@dataclass(frozen=True)
class Message:
    """A code or a link on its way to somebody; ``realm`` is "email" or "sms"."""

    realm: str
    to: str
    code: str
    link: str = ""
    asked: AuthorizationRequest | None = None


@dataclass
class Approval:
    """A login that a user elsewhere is asked for; ``answer`` is None until then."""

    grant: Grant
    message: str
    answer: bool | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(32))


@dataclass(frozen=True)
class Question:
    """What a page asks a user; ``yes`` gives what the app is sent then."""

    title: str
    text: str
    redirect_uri: str
    state: str | None
    yes: Callable[[], dict[str, str]]


@dataclass(frozen=True)
class Connect:
    """An account elsewhere that is about to be connected to a user's.

    ``auth_session`` and ``code_challenge`` say which app's visitor began that.
    """

    sub: str
    connection: str
    scopes: list[str]
    redirect_uri: str
    auth_session: str
    code_challenge: str
