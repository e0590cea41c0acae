"""Who signed in, and what the app may do for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auth0_flask.tenant.organizations import Organization


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
    organization: Organization | None = None


@dataclass(frozen=True)
class PendingCode:
    """What a code stands for, and what has to be shown along with it."""

    grant: Grant
    redirect_uri: str
    code_challenge: str
