"""The SDK's client, with all that can reach the network on one event loop."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, Protocol

from flask import current_app, has_request_context

from .loops import network
from .sdk import ServerClient
from .settings import Settings, SetupError

#: What the stores know a session by.
STATE_IDENTIFIER = "_a0_session"
# what asks for tokens goes there for the request itself, see tokens.py
_STAY_ON_THE_CALLERS_LOOP = {
    *("get_user", "get_session", "logout"),
    *("get_access_token", "get_access_token_for_connection"),
}


class StateStore(Protocol):
    """What the client asks of a store of sessions, beyond what the SDK does."""

    def read(self) -> dict[str, Any] | None:
        """Return the session, or None."""

    @property
    def lifetime(self) -> Any:
        """The rules for how long a session is good for."""

    def show(self) -> dict[str, Any] | None:
        """Return a copy of the session, one a request, or None."""

    def notes(self) -> dict[str, Any]:
        """Return what is noted for this request, and for no other."""

    def is_open(self) -> bool:
        """Tell whether this request has opened a session."""

    def peek(self) -> dict[str, Any] | None:
        """Return the session, over or not."""

    def encrypt(self, identifier: str, data: dict[str, Any], /) -> str:
        """Seal for this identifier."""

    def decrypt(self, identifier: str, sealed: object, /) -> dict[str, Any]:
        """Open what was sealed for this identifier."""

    def fresh_until(self, begins: float, seconds: float) -> float:
        """Return until when an access token is used."""

    def expect(self, fresh: Mapping[str, Any]) -> None:
        """Note what the SDK will leave out when it keeps a refreshed token."""

    def sealed(self) -> str | None:
        """Return the session as it lies in ``flask.session``."""

    def restore(self, sealed: str | None) -> None:
        """Put back what `sealed` returned."""

    def keep(self, identifier: str, state: dict[str, Any]) -> None:
        """Keep one."""

    async def get(self, identifier: str) -> dict[str, Any] | None:
        """Return what a view may do with as it likes, or None."""

    async def delete(self, identifier: str) -> None:
        """Forget it."""

    async def delete_by_logout_token(self, claims: dict[str, Any]) -> None:
        """End what a logout token names."""


class TransactionStore(Protocol):
    """What the client asks of a store of logins under way."""

    async def get(self, identifier: str) -> Any:
        """Return one, or None."""

    async def delete(self, identifier: str) -> None:
        """Forget one."""

    def forget_all(self) -> None:
        """Forget all."""


class OneLoopClient(ServerClient[Any]):
    """Runs what can reach the network on one loop, whichever loop it is called from.

    The methods are set below: every public coroutine method but those that only
    look into the session.
    """

    settings: Settings
    sessions: StateStore

    def require_setup(self) -> None:
        """Raise `SetupError` where the settings are wrong, but not in tests."""
        if self.settings.problems and not (current_app and current_app.testing):
            raise SetupError(self.settings.problems)

    def read_session(self) -> dict[str, Any] | None:
        """Return the session without awaiting anything, or None if signed out.

        The same as ``await get_session()``, for sync views, guards and templates.
        """
        self.require_setup()
        return self.sessions.show()


def _on_the_network_loop(
    method: Callable[..., Awaitable[Any]],
) -> Callable[..., Awaitable[Any]]:
    @wraps(method)
    async def call(self: OneLoopClient, *args: Any, **kwargs: Any) -> Any:
        if network.is_running_here():  # the SDK calls itself
            return await method(self, *args, **kwargs)
        self.require_setup()
        if has_request_context():  # what may block is done here, not on that loop
            self.sessions.lifetime.revocations.open()
            self.sessions.read()
        return await network.run(_coroutine(method(self, *args, **kwargs)))

    return call


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


for _name, _method in inspect.getmembers(ServerClient, inspect.iscoroutinefunction):
    if not _name.startswith("_") and _name not in _STAY_ON_THE_CALLERS_LOOP:
        setattr(OneLoopClient, _name, _on_the_network_loop(_method))
