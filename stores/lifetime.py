"""How long a session is good for: its times, and what ended it before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from auth0_server_python.utils import State

from .jwe import BadSeal
from .revocations import NoRevocations, Revocations


class Lifetime:
    """The rules for all sessions of an app; stricter ones hold for older sessions, too.

    Args:
        domain: The Auth0 domain; a session of another one is over.
        idle_seconds: Seconds without a request after which a session is over.
        max_seconds: Seconds after login at which a session is over in any case.

    Attributes:
        revocations: Which sessions were ended before their time.
    """

    def __init__(self, *, domain: str, idle_seconds: int, max_seconds: int) -> None:
        self._domain = domain
        self.idle_seconds = idle_seconds
        self.max_seconds = max_seconds
        self.revocations: Revocations = NoRevocations()

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise `BadSeal` if a session is over.

        Raises:
            BadSeal: It is; its text says why.
            RevocationsUnavailable: Nobody can say whether it was ended.
        """
        now, own = time.time(), state["session"]
        if state["domain"] != self._domain:
            raise BadSeal("of another Auth0 domain")
        if now - own["created_at"] >= self._max_seconds(own):
            raise BadSeal("at the end of its absolute lifetime")
        if now - own["used_at"] >= self.idle_seconds:
            raise BadSeal("idle for too long")
        if State.is_session_ceiling_reached(
            state["internal"].get("session_expires_at")
        ):
            raise BadSeal("at the end that the identity provider set")
        if own["created_at"] <= self.revocations.revoked_at(self._keys(state)):
            raise BadSeal("ended before its time")

    def ends_at(self, state: Mapping[str, Any]) -> float:
        """Return when a session ends, if it is not used again (seconds since 1970)."""
        own = state["session"]
        ceiling = state["internal"].get("session_expires_at") or float("inf")
        return min(  # type: ignore[no-any-return]  # numbers, all of them
            own["created_at"] + self._max_seconds(own),
            own["used_at"] + self.idle_seconds,
            ceiling - State.SESSION_EXPIRY_LEEWAY_SECONDS,
        )

    def end(self, state: Mapping[str, Any]) -> None:
        """End one session, by our own id, wherever a copy of it may be.

        What is over is noted no more: a copy can be shown any number of times.
        """
        own, now = state["session"], time.time()
        key, created_at = f"id {own['id']}", own["created_at"]
        # should the setting be shorter today, it may be longer again tomorrow
        until = created_at + max(own.get("max_seconds", 0), self.max_seconds)
        if now < until and self.revocations.revoked_at([key]) < created_at:
            at = max(now, created_at)  # should our clock be behind
            self.revocations.revoke([key], at=at, until=until)

    def end_all(
        self, *, sub: str | None = None, sid: str | None = None, jti: str | None = None
    ) -> bool:
        """End all sessions there are of a user, of one session at Auth0, or at all.

        Args:
            sub: The user.
            sid: The session at Auth0; it wins over the user.
            jti: The id of the logout token that asks for it.

        Returns:
            False if that token was taken before; nothing is changed then.
        """
        key = f"sid {sid}" if sid else f"sub {sub}" if sub else "all"
        now = time.time()
        return self.revocations.revoke(
            [f"{self._domain} {key}"], at=now, until=now + self.max_seconds, jti=jti
        )

    def _max_seconds(self, own: Mapping[str, Any]) -> float:
        """Return what it was at login, or is today if that is less.

        A longer one is for later logins: what was ended is remembered no longer.
        """
        return float(min(own.get("max_seconds", self.max_seconds), self.max_seconds))

    def _keys(self, state: Mapping[str, Any]) -> list[str]:
        user = state.get("user") or {}
        return [
            f"id {state['session']['id']}",
            f"{self._domain} sid {state['internal'].get('sid')}",
            f"{self._domain} sub {user.get('sub')}",
            f"{self._domain} all",
        ]
