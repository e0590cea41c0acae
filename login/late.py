"""What a slow answer must not undo."""

from __future__ import annotations

import logging

from flask import session
from werkzeug.wrappers import Response

from .extension import installed

logger = logging.getLogger(__name__)


def keep_newest_token(response: Response) -> Response:
    """Take over a refresh token that was replaced meanwhile; runs after every view.

    Where the old one came back with a slow answer's cookie, it would be refused
    later, and whoever it belongs to be signed out (RFC 9700 section 4.14.2).
    """
    client = installed().client
    if client.sessions.is_open() and session.modified:
        try:
            client.catch_up()
        except Exception as error:  # the answer itself is good
            kind = type(error).__name__
            logger.error("Whether a refresh token was replaced is not known: %s", kind)
    return response
