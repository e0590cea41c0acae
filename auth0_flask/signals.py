"""The signals that an app may listen to."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from blinker import NamedSignal, Namespace
from flask import current_app

_signals = Namespace()
# Receivers may be sync or async, and are connected with blinker, as Flask's own; the
# sender is the app: ``auth.user_logged_in.connect(receiver, app)``.

#: Before a session begins; with ``user``, the claims. A receiver that raises signs
#: nobody in; `LoginRefused` says why on the page.
user_logged_in = _signals.signal("user-logged-in")
#: After a session was ended here; with ``user``, the claims.
user_logged_out = _signals.signal("user-logged-out")
#: After a login that failed; with ``error``, one of the kinds of `LoginError`.
login_failed = _signals.signal("login-failed")
#: After sessions were ended elsewhere; with ``sub`` or ``sid``.
session_revoked = _signals.signal("session-revoked")
#: After an access token was refreshed; with ``user``, the claims.
tokens_refreshed = _signals.signal("tokens-refreshed")


async def send(signal: NamedSignal, **values: Any) -> None:
    """Send a signal to receivers of both kinds, with the current app as sender."""
    if signal.receivers:
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # Flask documents it
        await signal.send_async(app, _sync_wrapper=_awaitable, **values)


def _awaitable(receiver: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return receiver(*args, **kwargs)

    return call
