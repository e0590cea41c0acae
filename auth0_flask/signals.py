"""The signals that an app may listen to."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import isawaitable
from typing import Any, TypeVar

from asgiref.sync import AsyncToSync, sync_to_async
from blinker import ANY, NamedSignal
from flask import current_app

F = TypeVar("F", bound=Callable[..., Any])


class Signal(NamedSignal):
    """A signal of blinker, as Flask's own are; receivers may be sync or async.

    The sender is the app: ``@auth.user_logged_in.connect_via(app)`` in a factory.
    """

    def connect(self, receiver: F, sender: Any = ANY, weak: bool = False) -> F:
        """Connect a receiver, which stays, also where nothing else refers to it.

        A function within a factory would be gone when that returns, and with it what
        it refuses.
        """
        return super().connect(receiver, sender, weak)


#: Before a session begins; with ``user``, the claims. A receiver that raises signs
#: nobody in; `LoginRefused` says why on the page.
user_logged_in = Signal("user-logged-in")
#: After a session was ended here, also one that another user signed in over; with
#: ``user``, the claims.
user_logged_out = Signal("user-logged-out")
#: After a login that failed; with ``error``, one of the kinds of `LoginError`.
login_failed = Signal("login-failed")
#: After sessions were ended elsewhere; with ``sub`` or ``sid``.
session_revoked = Signal("session-revoked")
#: After an access token was refreshed; with ``user``, the claims.
tokens_refreshed = Signal("tokens-refreshed")


async def send(signal: Signal, **values: Any) -> None:
    """Send a signal to receivers of both kinds, with the current app as sender."""
    if signal.receivers:
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # Flask documents it
        await signal.send_async(app, _sync_wrapper=_in_thread_of_view, **values)


def _in_thread_of_view(
    receiver: Callable[..., Any],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Have a receiver called where sync views run: what is in ``g`` may need that."""

    def plain(*args: Any, **values: Any) -> Any:
        try:
            return receiver(*args, **values)
        except StopIteration as error:  # no future can hold that
            raise RuntimeError("a receiver raised StopIteration") from error

    async def call(*args: Any, **values: Any) -> Any:
        # without a bridge of asgiref above, this is that thread
        is_bridged = getattr(AsyncToSync.executors, "current", None)
        work = sync_to_async(plain) if is_bridged else None
        found = await work(*args, **values) if work else plain(*args, **values)
        return await found if isawaitable(found) else found

    return call
