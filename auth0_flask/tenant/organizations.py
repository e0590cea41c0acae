"""The organizations that somebody can sign in to."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass


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
