"""Telling the app, in a thread of its own, that a session has ended."""

from __future__ import annotations

import http.client
import threading
import time
from urllib.parse import urlencode, urlsplit

_TIMEOUT = 5.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Notices:
    """Logout tokens on their way to the app; thread-safe."""

    def __init__(self) -> None:
        """Start with none on its way."""
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def send(
        self, url: str, logout_token: str, answers: list[int], due: threading.Event
    ) -> None:
        """Send a logout token (OpenID Connect Back-Channel Logout, section 2.5).

        Args:
            url: Where to, with plain http.
            logout_token: The token.
            answers: Where the answer's status goes; 0 where there is none.
            due: Set when it is time to.
        """
        form = urlencode({"logout_token": logout_token})
        thread = threading.Thread(
            target=self._run, args=(url, form, answers, due), daemon=True
        )
        with self._lock:
            self._threads.add(thread)
            thread.start()

    def finish(self, patience: float = _TIMEOUT) -> bool:
        """Wait for what is on its way; tell whether all of it has arrived."""
        deadline = time.monotonic() + patience
        with self._lock:
            waiting = list(self._threads)
        for thread in waiting:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in waiting)

    def _run(
        self, url: str, form: str, answers: list[int], due: threading.Event
    ) -> None:
        due.wait(_TIMEOUT)
        try:
            answers.append(_post(url, form))
        except (OSError, http.client.HTTPException):
            answers.append(0)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())


def _post(url: str, form: str) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=_TIMEOUT
    )
    try:
        target = parts._replace(scheme="", netloc="", path=parts.path or "/").geturl()
        connection.request("POST", target, form, _FORM)
        return connection.getresponse().status
    finally:
        connection.close()
